package nix

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/internal/remedy"
)

func TestNixIsFoundWhereItsInstallersPutIt(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("PATH", t.TempDir())
	if path, err := find(); err == nil {
		t.Skipf("this machine has Nix where any shell finds it: %s", path)
	} else {
		for _, want := range []string{"needs Nix, which is not installed", "nixos.org/download", "apt-get install nix-setup-systemd", "[build-recipe]"} {
			if !strings.Contains(fmt.Sprint(err, remedy.Of(err)), want) {
				t.Errorf("%q is missing in: %v", want, err)
			}
		}
	}
	want := filepath.Join(home, ".nix-profile/bin/nix")
	if err := os.MkdirAll(filepath.Dir(want), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(want, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := find(); err != nil || got != want {
		t.Errorf("got %q, %v, want %s", got, err, want)
	}
}
