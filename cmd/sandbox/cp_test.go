package main

import "testing"

func TestEndpoints(t *testing.T) {
	for s, want := range map[string]endpoint{
		"work:/etc/x": {"work", "/etc/x"}, "work:": {"work", "."}, "work:~": {"work", "."}, "work:~/a b": {"work", "./a b"},
		"work:x:y": {"work", "x:y"}, "file": {"", "file"}, "./work:x": {"", "./work:x"}, "/a:b": {"", "/a:b"},
		"-": {"", "-"}, "Work:x": {"", "Work:x"}, ":x": {"", ":x"}, "a.b:x": {"", "a.b:x"},
	} {
		if got := parseEndpoint(s); got != want {
			t.Errorf("%q is %q, want %q", s, got, want)
		}
	}
}
