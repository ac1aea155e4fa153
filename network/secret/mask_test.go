package secret

import (
	"bytes"
	"encoding/base64"
	"errors"
	"html"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"
)

func answer(body io.Reader, header ...string) *http.Response {
	r := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, ContentLength: -1, Body: io.NopCloser(body)}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

func TestWhatAHostRepeatsIsMasked(t *testing.T) {
	table := newTable(t)
	for name, form := range map[string]func(string) string{
		"itself":        func(s string) string { return s },
		"a query":       url.QueryEscape,
		"a path":        url.PathEscape,
		"JSON":          inJSON,
		"HTML":          html.EscapeString,
		"JSON for HTML": func(s string) string { return angles.Replace(inJSON(s)) },
	} {
		for _, c := range []struct {
			host        Host
			is, masking string
		}{{tokenHost, realToken, token}, {keyHost, realKey, key}} {
			text := "a " + form(c.is) + " b" + form(c.is) + form(c.is)
			want := "a " + form(c.masking) + " b" + form(c.masking) + form(c.masking)
			r := answer(strings.NewReader(text), "X-Echo", text, "Location", "/"+text, "Content-Length", "1")
			r.Header["X-Two"] = []string{"a", text}
			table.Mask(c.host, r)
			got, err := io.ReadAll(r.Body)
			if err != nil || string(got) != want || r.Header.Get("X-Echo") != want || r.Header.Get("Location") != "/"+want || r.Header["X-Two"][1] != want {
				t.Errorf("%s: %s, %v, %v; want %s", name, got, err, r.Header, want)
			}
		}
	}
	r := answer(strings.NewReader(realToken), "Content-Encoding", "gzip") // which it is not
	table.Mask(tokenHost, r)
	if got, err := io.ReadAll(r.Body); err != nil || string(got) != token {
		t.Errorf("%s, %v", got, err)
	}
	r = answer(strings.NewReader(realToken + realKey))
	table.Mask(Host{"other.example.com", 443}, r)
	if got, err := io.ReadAll(r.Body); err != nil || string(got) != realToken+realKey {
		t.Errorf("what another host says is %s, %v", got, err)
	}
}

func TestCredentialsOfBasicAreMasked(t *testing.T) {
	table := newTable(t)
	for _, user := range []string{"", "a", "ab", "abc", "????"} {
		for _, c := range []struct {
			host Host
			is   string
		}{{tokenHost, realToken}, {keyHost, realKey}} {
			for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
				text := encoding.EncodeToString([]byte(user + ":" + c.is + ":????"))
				r := answer(strings.NewReader(text))
				table.Mask(c.host, r)
				got, err := io.ReadAll(r.Body)
				if err != nil {
					t.Fatal(err)
				}
				plain, _ := encoding.DecodeString(string(got)) // where lengths differ, not all of it
				if strings.Contains(string(plain), c.is[1:6]) || strings.Contains(string(plain), c.is[8:len(c.is)-1]) || !strings.HasPrefix(string(plain), user+":") {
					t.Errorf("the user %q: %q", user, plain)
				}
			}
		}
	}
}

func TestWhatIsNotMasked(t *testing.T) {
	table := newTable(t)
	if err := table.Set("TOKEN", value(t, "1234567")); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]*http.Response{
		"short text":           answer(strings.NewReader("1234567")),
		"a part of the secret": answer(strings.NewReader(realKey[1:])),
	} {
		was, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(was))
		table.Mask(Host{"also.example.com", 443}, r)
		if got, err := io.ReadAll(r.Body); err != nil || string(got) != string(was) {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
}

// A host may repeat what it was sent before there was another secret.
func TestThePreviousSecretIsMasked(t *testing.T) {
	table := newTable(t)
	if err := table.Set("TOKEN", value(t, "ghp_another1234567890000")); err != nil {
		t.Fatal(err)
	}
	r := answer(strings.NewReader(realToken + " ghp_another1234567890000"))
	table.Mask(tokenHost, r)
	if got, err := io.ReadAll(r.Body); err != nil || string(got) != token+" "+token {
		t.Errorf("%s, %v", got, err)
	}
}

func TestAnswersWithoutABodyKeepTheirLength(t *testing.T) {
	table := newTable(t)
	for _, c := range []struct {
		method string
		status int
	}{{"HEAD", 200}, {"GET", 204}, {"GET", 304}, {"GET", 101}} {
		r := answer(http.NoBody, "Content-Length", "7", "X-Echo", realKey)
		r.Request, r.StatusCode, r.ContentLength = &http.Request{Method: c.method}, c.status, 7
		table.Mask(keyHost, r)
		if r.ContentLength != 7 || r.Header.Get("Content-Length") != "7" || r.Header.Get("X-Echo") != key {
			t.Errorf("%v: %d, %v", c, r.ContentLength, r.Header)
		}
	}
}

func TestTrailersAreMasked(t *testing.T) {
	table := newTable(t)
	for _, encoding := range []string{"", "gzip"} {
		r := answer(nil, "Content-Encoding", encoding)
		r.Body = io.NopCloser(io.MultiReader(strings.NewReader("x"), readerFunc(func([]byte) (int, error) {
			r.Trailer = http.Header{"X-Echo": {realToken}}
			return 0, io.EOF
		})))
		table.Mask(tokenHost, r)
		if _, err := io.ReadAll(r.Body); err != nil || r.Trailer.Get("X-Echo") != token {
			t.Errorf("%v, %v", r.Trailer, err)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// Each read is asked for only when all that came before has been passed on.
func TestMaskingHoldsNothingBack(t *testing.T) {
	table := newTable(t)
	var got, want string
	events := []string{"data: a\n\n", "g", "data: gh", "ghp_", realToken[:7] + "\n", "K", "s3", "data: z\n\n"}
	next := 0
	r := answer(readerFunc(func(b []byte) (int, error) {
		if got != want {
			t.Fatalf("%q was passed on of %q", got, want)
		}
		if next == len(events) {
			return 0, io.EOF
		}
		want += events[next]
		next++
		return copy(b, events[next-1]), nil
	}))
	table.Mask(Host{"also.example.com", 443}, r)
	for b := make([]byte, 100); ; {
		n, err := r.Body.Read(b)
		got += string(b[:n])
		if err == io.EOF {
			break
		}
	}
	if got != want {
		t.Errorf("%q", got)
	}
}

// What is held back of an answer that breaks may be most of a secret.
func TestAnAnswerThatBreaksEndsBeforeASecret(t *testing.T) {
	table := newTable(t)
	broken := errors.New("broken")
	r := answer(io.MultiReader(strings.NewReader("a "+realToken[:len(realToken)-1]), iotest.ErrReader(broken)))
	table.Mask(tokenHost, r)
	if got, err := io.ReadAll(r.Body); err != broken || string(got) != "a " {
		t.Errorf("%q, %v", got, err)
	}
}

// FuzzMask compares masking as it comes with masking of the whole. They differ in the first characters of a secret, which
// are not held back.
func FuzzMask(f *testing.F) {
	f.Add("a "+realToken+" b", []byte{3, 1}, "")
	f.Add(realToken+realKey+realToken, []byte{1}, realToken[:8])
	f.Add("aaaaaaaabaaaaaaaaaaaac", []byte{2, 5}, "aaaaaaaaaaaa")
	f.Add("abababababababcabababab", []byte{1, 7}, "abababab")
	f.Add("ababababaY0aY0000000000000", []byte("x"), "abababaY")
	f.Add(strings.Repeat("What there is mostly. ", 20)+"$1$1 s "+realKey[:5], []byte{39}, "")
	f.Fuzz(func(t *testing.T, text string, sizes []byte, third string) {
		v, err := NewValue(third)
		if err != nil {
			v = value(t, "12345678")
		}
		all := masks([]entry{
			{Entry: Entry{Placeholder: token}, value: value(t, realToken)},
			{Entry: Entry{Placeholder: key}, value: value(t, realKey)},
			{Entry: Entry{Placeholder: "0123456789abcdef"}, value: v},
		})
		text = strings.ReplaceAll(strings.ReplaceAll(text, "$1", realToken), "$2", third)
		at := map[int]bool{}
		read, i := 0, 0
		source := &slowly{text, func() int {
			n := 1
			if len(sizes) > 0 {
				n = 1 + int(sizes[i%len(sizes)])%40
			}
			i++
			return n
		}}
		got, err := io.ReadAll(&replacer{Closer: io.NopCloser(nil), texts: all, source: readerFunc(func(b []byte) (int, error) {
			n, err := source.Read(b)
			read += n
			at[read] = true
			return n, err
		})})
		if err != nil {
			t.Fatal(err)
		}
		if !isMasked(string(got), text, all, at) {
			t.Errorf("%q is\n%q", text, got)
		}
	})
}

// isMasked tells whether got is a text, masked, that has come in pieces, which end where ends says: where one ends within a
// secret, the beginning of the secret may have been passed on, and of several that may begin there less.
func isMasked(got, text string, all []replacement, ends map[int]bool) bool {
next:
	for i := 0; i < len(text); {
		for _, r := range all {
			if !strings.HasPrefix(text[i:], string(r.old)) {
				continue
			}
			for early := 0; early <= r.early; early++ {
				if masked := text[i:i+early] + r.new[min(early, len(r.new)):]; (early == 0 || ends[i+early]) && strings.HasPrefix(got, masked) {
					got = got[len(masked):]
					i += len(r.old)
					continue next
				}
			}
			return false
		}
		if got == "" || got[0] != text[i] {
			return false
		}
		got = got[1:]
		i++
	}
	return got == ""
}
