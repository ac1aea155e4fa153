package main

import (
	"os"
	"path/filepath"
	"testing"
)

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

func TestNamesOfSources(t *testing.T) {
	for s, want := range map[string]string{
		"/etc/hosts": "hosts", "/etc/": "etc", "/etc/.": ".", "/": ".", ".": ".", "a": "a", "./a/b/": "b", "..": ".", "a/..": ".", "-x": "-x",
	} {
		if typed, name := splitSource(s); typed != s || name != want {
			t.Errorf("the guest's %q is %q, want %q", s, name, want)
		}
	}
	t.Chdir(t.TempDir())
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for s, want := range map[string]string{
		"/etc/hosts": "hosts", "/etc/": "etc", "/etc/.": ".", "/": ".", ".": ".", "a/./b": "b", "..": filepath.Base(filepath.Dir(here)), "/dev/fd/63": "63",
	} {
		if name, err := uploadName(s); name != want || err != nil {
			t.Errorf("this machine's %q is %q, %v; want %q", s, name, err, want)
		}
	}
}
