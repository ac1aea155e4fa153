package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const testValue = "s3cr3t-of-tests"

func value(t testing.TB, text string) Value {
	t.Helper()
	v, err := NewValue(text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// holder has a value where package fmt asks it nothing.
type holder struct {
	v   Value
	all []Value
	by  map[string]Value
	any any
}

func TestAValueIsNotPrinted(t *testing.T) {
	v := value(t, testValue)
	h := holder{v, []Value{v}, map[string]Value{"k": v}, v}
	// Also of numbers and of each byte.
	hidden := []string{testValue, fmt.Sprintf("%x", testValue), fmt.Sprintf("%X", testValue), fmt.Sprint([]byte(testValue)), fmt.Sprintf("% x", testValue)}
	check := func(how, got string) {
		t.Helper()
		for _, text := range hidden {
			if strings.Contains(got, text) {
				t.Errorf("%s prints %s", how, got)
			}
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%t", "%p", "%w", "%T", "%10.3s", "%!", "%z"} {
		for _, what := range []any{v, &v, h, &h, []Value{v}, []any{v, h}, map[Value]holder{v: h}, struct{ V *Value }{&v}} {
			check(verb, fmt.Sprintf(verb, what))
			if err := fmt.Errorf(verb, what); err != nil {
				check("an error with "+verb, err.Error())
			}
		}
	}
	if got := fmt.Sprintf("%v %+v %s", v, &v, []Value{v}); got != "[secret] [secret] [[secret]]" {
		t.Errorf("it is shown as %s", got)
	}
	check("Sprint", fmt.Sprint(v, h))
	var log bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(handler).Error("x", "v", v, "p", &v, "h", h, "all", h.all, "by", h.by)
	}
	check("slog", log.String())
	if !strings.Contains(log.String(), `"v":"[secret]"`) {
		t.Errorf("the log does not show that there is one: %s", log.String())
	}
}

func TestAValueIsNotEncoded(t *testing.T) {
	v := value(t, testValue)
	for _, what := range []any{v, &v, []Value{v}, map[string]any{"k": v}, map[Value]int{v: 1}, struct{ V Value }{v}} {
		if text, err := json.Marshal(what); err == nil {
			t.Errorf("%T is encoded as %s", what, text)
		} else if strings.Contains(err.Error(), testValue) {
			t.Error(err)
		}
	}
}

// TestAPanicDoesNotPrintAValue needs a process that ends.
func TestAPanicDoesNotPrintAValue(t *testing.T) {
	const variable = "SECRET_TEST_PANIC"
	v := value(t, strings.Join([]string{"s3cr3t", "of", "panics"}, "-")) // and not a string of the program
	switch os.Getenv(variable) {
	case "value":
		panic(v)
	case "holder":
		panic(holder{v: v})
	case "error":
		panic(fmt.Errorf("%v %+v", v, &holder{v: v}))
	}
	for _, what := range []string{"value", "holder", "error"} {
		cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), variable+"="+what, "GOTRACEBACK=all")
		out, err := cmd.CombinedOutput()
		if _, ok := errors.AsType[*exec.ExitError](err); !ok || !bytes.Contains(out, []byte("panic: ")) {
			t.Errorf("%s: %v\n%s", what, err, out)
		}
		if bytes.Contains(out, []byte(v.Reveal())) {
			t.Errorf("%s prints it:\n%s", what, out)
		}
	}
}

func TestNewValue(t *testing.T) {
	for text, want := range map[string]string{
		"a":                            "a",
		"a b~!\"'\\":                   "a b~!\"'\\",
		"a\n":                          "a",
		"a\r\n":                        "a",
		strings.Repeat("x", maxValue):  strings.Repeat("x", maxValue),
		"":                             "",
		"\n":                           "",
		" a":                           "",
		"a ":                           "",
		"a\n\n":                        "",
		"a\nb":                         "",
		"a\x00":                        "",
		"\u00e9":                       "",
		"a\x7f":                        "",
		strings.Repeat("x", maxRead-2): "",
	} {
		v, err := NewValue(text)
		if v.Reveal() != want || (err == nil) != (want != "") || v.IsZero() != (want == "") {
			t.Errorf("%.20q: %.20q, %v", text, v.Reveal(), err)
		}
		if len(text) > 2 && err != nil && strings.Contains(err.Error(), text) {
			t.Error(err)
		}
		read, readErr := Read(strings.NewReader(text))
		if read != v || (readErr == nil) != (err == nil) {
			t.Errorf("%.20q is read as %.20q, %v", text, read.Reveal(), readErr)
		}
	}
	if value(t, "a") != value(t, "a\n") || value(t, "a") == value(t, "b") {
		t.Error("values are not equal by what they are")
	}
}

func TestAValuePassesInAFileThatNobodyChanges(t *testing.T) {
	v := value(t, testValue)
	f, err := v.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("it can be written")
	}
	if f.Truncate(0) == nil || f.Truncate(100) == nil {
		t.Error("it can be truncated")
	}
	for range 2 { // it is passed to several
		if got, err := ReadFile(f); err != nil || got != v {
			t.Errorf("it is read as %q, %v", got.Reveal(), err)
		}
	}
}
