package terminal

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode"
	"unicode/utf8"
)

func TestTextShowsWhatATerminalWouldObey(t *testing.T) {
	for in, want := range map[string]string{
		"":                                       "",
		"plain ä 漢字 🦦 é\n\tmore\n":               "plain ä 漢字 🦦 é\n\tmore\n",
		"\x1b]52;c;cm0gLXJmCg==\x07":             `\x1b]52;c;cm0gLXJmCg==\x07`,
		"\x1b]0;title\x1b\\":                     `\x1b]0;title\x1b\`,
		"\x1b[2J\x1b[H\x1b[1A\x1b[K":             `\x1b[2J\x1b[H\x1b[1A\x1b[K`,
		"\x1b[32m  OK  \x1b[0m \x1b[0;1;31m":     "  OK   ",
		"\x1b[38:2::1:2:3mx":                     "x",
		"\x1b[" + strings.Repeat("1;", 40) + "m": `\x1b[` + strings.Repeat("1;", 40) + "m",
		"\x1b":                                   `\x1b`,
		"\x1b[":                                  `\x1b[`,
		"\x1b[31":                                `\x1b[31`,
		"one\r\ntwo\r\r\n":                       "one\ntwo\n",
		"all is well\rsandbox: trust me":         `all is well\x0dsandbox: trust me`,
		"end\r":                                  `end\x0d`,
		"\x9b2J":                                 `\x9b2J`,
		"\u009b2J\u0085":                         `\u009b2J\u0085`,
		"a\x00\a\b\v\f\x7fz":                     `a\x00\x07\x08\x0b\x0c\x7fz`,
		"\u202eexe.txt\u202c \u2066x\u2069":      `\u202eexe.txt\u202c \u2066x\u2069`,
		"pay\u200bpal\ufeff\u00ad":               `pay\u200bpal\ufeff\u00ad`,
		"\u2028\u2029":                           `\u2028\u2029`,
		"tag \U000e0041":                         `tag \U000e0041`,
		"cut \xe6\xbc":                           `cut \xe6\xbc`,
		"over\xc0\x9blong":                       `over\xc0\x9blong`,
		"\ufffd":                                 "\ufffd",
	} {
		if got := Text(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
		var b strings.Builder
		w := NewWriter(&b)
		if _, err := io.Copy(w, iotest.OneByteReader(strings.NewReader(in))); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil || b.String() != want {
			t.Errorf("%q, byte by byte, is shown as %q, want %q (%v)", in, b.String(), want, err)
		}
	}
	if got, want := Line("a\nb\tc\r\n"), `a\nb\tc\n`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNothingIsHeldBackWithoutNeed(t *testing.T) {
	var b strings.Builder
	w := NewWriter(&b)
	fmt.Fprint(w, "login: ")
	if b.String() != "login: " {
		t.Errorf("%q was passed on", b.String())
	}
	fmt.Fprint(w, strings.Repeat("\r", 100))
	if !strings.Contains(b.String(), `\x0d`) {
		t.Errorf("%q was passed on", b.String())
	}
}

func TestJSONMeansTheSame(t *testing.T) {
	in := map[string]string{"rea\u009bson": "\x1b[2J \u202e \u200b \x7f \U000e0041 ä <&>", "next": "\u0085\n\t"}
	text, err := json.MarshalIndent(in, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	safe := JSON(text)
	if i := strings.IndexFunc(string(safe), special); i >= 0 {
		t.Errorf("%q has a special character at %d", safe, i)
	}
	var out map[string]string
	if err := json.Unmarshal(safe, &out); err != nil {
		t.Fatal(err)
	}
	for k, v := range in {
		if out[k] != v {
			t.Errorf("%q came back as %q, want %q", k, out[k], v)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("\x1b[3", "1mx\r", "\n\xe6")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		whole := Text(a + b + c)
		var pieces strings.Builder
		w := NewWriter(&pieces)
		for _, piece := range []string{a, b, c} {
			if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
				t.Fatal(n, err)
			}
		}
		if err := w.Close(); err != nil || pieces.String() != whole {
			t.Errorf("%q in pieces is %q, and whole %q (%v)", []string{a, b, c}, pieces.String(), whole, err)
		}
		for _, r := range whole {
			if r != '\n' && r != '\t' && !unicode.IsGraphic(r) {
				t.Errorf("%q is shown with %q", a+b+c, r)
			}
		}
		if !utf8.ValidString(whole) || strings.ContainsAny(Line(whole), "\n\t") {
			t.Errorf("%q is shown as %q", a+b+c, whole)
		}
	})
}
