package wire

import (
	"encoding/json"
	"testing"
)

func TestRawStringsSurviveJSON(t *testing.T) {
	for in, want := range map[RawString]string{
		"":         `""`,
		"plain":    `"plain"`,
		"ü\n\x00":  `"ü\n\u0000"`,
		"\xff\x00": `{"base64":"/wA="}`,
	} {
		data, err := json.Marshal(in)
		if err != nil || string(data) != want {
			t.Errorf("%q became %s, %v; want %s", in, data, err, want)
		}
		var out RawString
		if err := json.Unmarshal(data, &out); err != nil || out != in {
			t.Errorf("%q came back as %q, %v", in, out, err)
		}
	}
	var s RawString
	if err := json.Unmarshal([]byte("7"), &s); err == nil {
		t.Error("a number was taken for a string")
	}
}

func TestSignalNamesAndNumbers(t *testing.T) {
	for name, number := range map[string]int{"HUP": 1, "KILL": 9, "TERM": 15, "WINCH": 28, "": 0, "SIGTERM": 0, "NOPE": 0} {
		if got := SignalNumber(name); got != number {
			t.Errorf("%q has the number %d, want %d", name, got, number)
		}
		if number != 0 && SignalName(number) != name {
			t.Errorf("%d has the name %q, want %q", number, SignalName(number), name)
		}
	}
	for _, number := range []int{-1, 0, 32, 1000} {
		if got := SignalName(number); got != "" {
			t.Errorf("%d has the name %q", number, got)
		}
	}
}
