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

func TestSources(t *testing.T) {
	for s, want := range map[string][2]string{
		"/etc/hosts": {"/etc", "hosts"}, "/etc/": {"/", "etc"}, "/etc/.": {"/etc", "."}, "/": {"/", "."},
		".": {".", "."}, "a": {".", "a"}, "./a/b/": {"a", "b"}, "..": {"..", "."}, "a/..": {".", "."}, "-x": {".", "-x"},
	} {
		dir, base := splitSource(s)
		if dir != want[0] || base != want[1] {
			t.Errorf("%q is %q in %q, want %q", s, base, dir, want)
		}
	}
}

func TestPlacesInTheGuest(t *testing.T) {
	for name, tt := range map[string]struct {
		isDir            bool
		source, dest, is string
		dir, name        string // both empty: an error
	}{
		"file into directory":     {false, "a/f", "d", "directory", "d", "f"},
		"file over file":          {false, "a/f", "d/g", "file", "d/", "g"},
		"file to new name":        {false, "a/f", "g", "missing", ".", "g"},
		"file to no directory":    {false, "a/f", "d/", "missing", "", ""},
		"tree into directory":     {true, "a/t/", "d", "directory", "d", "t"},
		"tree to new name":        {true, "a/t", "d/n/", "missing", "d/", "n"},
		"tree over file":          {true, "a/t", "d/f", "file", "", ""},
		"contents into directory": {true, "a/t/.", "d", "directory", "d", "."},
		"contents to new name":    {true, "a/t/.", "/d/n", "missing", "/d/", "n"},
	} {
		t.Run(name, func(t *testing.T) {
			parent, base := splitDest(tt.dest)
			dir, got, err := place(tt.isDir, tt.source, tt.dest, parent, base, tt.is)
			if dir != tt.dir || got != tt.name || (err != nil) != (tt.name == "") {
				t.Errorf("%q in %q, %v; want %q in %q", got, dir, err, tt.name, tt.dir)
			}
		})
	}
}

func TestGuestCannotControlTheTerminalByItsMessages(t *testing.T) {
	if got := printable("tar: \x1b]0;x\a\u009bä\n"); got != "tar: ?]0;x??ä\n" {
		t.Errorf("%q", got)
	}
}
