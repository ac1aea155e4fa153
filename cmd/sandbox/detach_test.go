package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestDetachKeys(t *testing.T) {
	for s, want := range map[string]string{"": "", "ctrl-p,ctrl-q": "\x10\x11", "ctrl-x,d": "\x18d", "ctrl-@": "\x00", "q": "q"} {
		if got, err := parseDetachKeys(s); err != nil || string(got) != want {
			t.Errorf("%q is %q, %v; want %q", s, got, err, want)
		}
	}
	for _, s := range []string{"ctrl-", "ctrl-1", "word", "ctrl-p,,"} {
		if got, err := parseDetachKeys(s); err == nil || !strings.Contains(err.Error(), defaultDetachKeys) {
			t.Errorf("%q was taken as %q, %v", s, got, err)
		}
	}
}

// typed is what reached the guest until the person left, and why that was.
func typed(t *testing.T, in io.Reader, keys string) (string, error) {
	t.Helper()
	k := newKeyboard(in, []byte(keys))
	r, w := io.Pipe()
	go func() { _, _ = io.Copy(w, k) }()
	var got bytes.Buffer
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(&got, r)
	}()
	why := <-k.left
	r.Close()
	<-copied
	return got.String(), why
}

func TestKeyboardPassesEverythingOnUntilTheDetachKeys(t *testing.T) {
	paste := strings.Repeat("0123456789 ä\x10\n", 1<<16)
	for name, tt := range map[string]struct {
		in, keys, want string
		why            error
	}{
		"keys":               {"ls\r\x10\x11rest", "\x10\x11", "ls\r", errDetached},
		"first key alone":    {"\x10a\x10\x10\x11", "\x10\x11", "\x10a\x10", errDetached},
		"no keys":            {"a\x10\x11b", "", "a\x10\x11b", errHangup},
		"lost":               {"abc", "\x10\x11", "abc", errHangup},
		"end of file is one": {"\x04", "\x10\x11", "\x04", errHangup},
		"large paste":        {paste + "\x10\x11", "\x10\x11", paste, errDetached},
	} {
		t.Run(name, func(t *testing.T) {
			for how, in := range map[string]io.Reader{
				"at once": strings.NewReader(tt.in), "one by one": iotest.OneByteReader(strings.NewReader(tt.in)),
			} {
				got, why := typed(t, in, tt.keys)
				if got != tt.want || why != tt.why {
					t.Errorf("%s: %d bytes (%.40q), %v; want %d (%.40q), %v", how, len(got), got, why, len(tt.want), tt.want, tt.why)
				}
			}
		})
	}
}
