package main

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"
)

func TestWhatAGuestSwitchedOnIsSwitchedOff(t *testing.T) {
	for name, tt := range map[string]struct{ out, want string }{
		"plain":                     {"hello, \x1b[31mred\x1b[0m and \x1b[1;4mbold\x1b[m\r\n", ""},
		"a full screen that ended":  {"\x1b[?1049h\x1b[?1h\x1b=\x1b[?25l\x1b[2J\x1b[?25h\x1b[?1l\x1b>\x1b[?1049l", ""},
		"a full screen that died":   {"\x1b[?1049h\x1b[1;40r\x1b[?1h\x1b=\x1b[?25l\x1b[2J", "\x1b[r\x1b[?1l\x1b[?25h\x1b[?1049l\x1b>"},
		"mouse":                     {"\x1b[?1000;1002;1006h\x1b[?1002l", "\x1b[?1000l\x1b[?1006l"},
		"paste":                     {"\x1b[?2004h$ ", "\x1b[?2004l"},
		"no wrapping":               {"\x1b[?7l", "\x1b[?7h"},
		"keyboard":                  {"\x1b[>1u\x1b[>5u\x1b[<u\x1b[>4;2m", "\x1b[<1u\x1b[>4m"},
		"keyboard given back":       {"\x1b[>1u\x1b[<9u\x1b[=5;1u\x1b[=0u\x1b[>4;1m\x1b[>4;0m", ""},
		"asking is no setting":      {"\x1b[?u\x1b[c\x1b[?2026$p\x1b[6n", ""},
		"lines and colours":         {"\x1b(0lqk\x0e\x1b[38:5:9m\x1b[4h\x1b[3 q", "\x1b[4l\x1b(B\x0f\x1b[m\x1b[0 q"},
		"region on the main screen": {"\x1b[2;5r", "\x1b7\x1b[r\x1b8"},
		"a title is no mode":        {"\x1b]0;\x0e[?1049h\x07\x1b]2;x\x1b\\\x1bPq[?25l\x1b\\", ""},
		"cut off in a title":        {"\x1b]0;half", "\x18"},
		"cut off in a sequence":     {"\x1b[?1049h\x1b[12", "\x18\x1b[?1049l"},
		"unknown modes":             {"\x1b[?9999h\x1b[?h\x1b[?25;;1049x", ""},
		"endless parameters":        {"\x1b[" + string(bytes.Repeat([]byte("1;"), 1<<12)) + "h", ""},
	} {
		for how, in := range map[string]io.Reader{
			"at once": bytes.NewReader([]byte(tt.out)), "one by one": iotest.OneByteReader(bytes.NewReader([]byte(tt.out))),
		} {
			var shown bytes.Buffer
			s := newScreenModes(&shown)
			if _, err := io.Copy(s, in); err != nil {
				t.Fatal(err)
			}
			s.close()
			s.close()
			if _, err := s.Write([]byte("late")); err != nil {
				t.Fatal(err)
			}
			if got := shown.String(); got != tt.out+tt.want {
				t.Errorf("%s, %s: got %q after the output, want %q", name, how, bytes.TrimPrefix(shown.Bytes(), []byte(tt.out)), tt.want)
			}
		}
	}
}
