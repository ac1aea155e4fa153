package virtiofs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// script writes an executable shell script named virtiofsd to a directory of its own, and returns that.
func script(t *testing.T, body string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, program), []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

const (
	sayC    = `echo "virtiofsd version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)"; echo "using FUSE kernel interface version 7.36"`
	sayOld  = `echo "virtiofsd 1.10.0"`
	sayGood = `echo "virtiofsd 1.13.2"`
)

func TestFindTakesTheFirstThatIsGoodEnough(t *testing.T) {
	empty, old, c, good, newer := t.TempDir(), script(t, sayOld), script(t, sayC), script(t, sayGood), script(t, `echo "virtiofsd 2.0.0-dev"`)
	got, err := find(t.Context(), []string{"", ".", empty, old, c, good, newer})
	if want := (Daemon{Path: filepath.Join(good, program), Version: "1.13.2"}); err != nil || got != want {
		t.Errorf("find = %+v, %v; want %+v", got, err, want)
	}
}

func TestFindNamesWhatIsWrongAndTheRemedy(t *testing.T) {
	for _, test := range []struct {
		name, body, want string
	}{
		{"C", sayC, "is the old one written in C"},
		{"too old", sayOld, "is version 1.10.0, which cannot translate user ids"},
		{"broken", "echo cannot open libc.so.6 >&2; exit 127", "does not run (exit status 127: cannot open libc.so.6)"},
		{"silent", "true", `states no version ("")`},
	} {
		dir := script(t, test.body)
		_, err := find(t.Context(), []string{dir})
		if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, program)+" "+test.want) || !strings.Contains(err.Error(), "apt install virtiofsd") {
			t.Errorf("%s: %v; want %q and the remedy", test.name, err, test.want)
		}
	}
	_, err := find(t.Context(), []string{t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "is not installed") || !strings.Contains(err.Error(), "apt install virtiofsd") {
		t.Errorf("none: %v", err)
	}
}

func TestFindTellsOfAMissingLoader(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, program), []byte("#!/no/such/loader\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := find(t.Context(), []string{dir}); err == nil || !strings.Contains(err.Error(), "dynamic loader is missing") {
		t.Errorf("got %v", err)
	}
}

func TestFindEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := find(ctx, []string{script(t, "exec sleep 60")}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestParseVersion(t *testing.T) {
	for output, want := range map[string]string{
		"virtiofsd 1.13.2\n":         "1.13.2",
		"virtiofsd 1.13.0":           "1.13.0",
		"virtiofsd backend 1.14.1\n": "1.14.1",
		"virtiofsd 2.0":              "2.0",
		"virtiofsd 1.9.9":            "",
		"virtiofsd 0.99.1":           "",
		"virtiofsd version 8.0.0":    "",
		"":                           "",
	} {
		got, err := parseVersion(output)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("parseVersion(%q) = %q, %v; want %q", output, got, err, want)
		}
	}
}
