package nix

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAStoreOfTheUsersOwnIsFound(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_DATA_HOME", "")
	const path = storeDir + "image"
	if got, want := locate(path), filepath.Join(home, ".local/share/nix/root", path); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	t.Setenv("XDG_DATA_HOME", "/data")
	if got, want := locate(path), "/data/nix/root"+path; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := locate(home); got != home {
		t.Errorf("a path that is there became %s", got)
	}
}

func TestNixDoesNotGetOurKeys(t *testing.T) {
	t.Setenv("ANTHROPIC_API_KEY", "secret")
	t.Setenv("NIX_PATH", "nixpkgs=/x")
	t.Setenv("SSH_AUTH_SOCK", "/run/agent")
	nix := filepath.Join(t.TempDir(), "nix")
	if err := os.WriteFile(nix, []byte("#!/bin/sh\nenv\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := command(t.Context(), nix, "build").Output()
	if err != nil {
		t.Fatal(err)
	}
	if text := string(out); strings.Contains(text, "secret") || !strings.Contains(text, "NIX_PATH=nixpkgs=/x\n") || !strings.Contains(text, "SSH_AUTH_SOCK=/run/agent\n") {
		t.Errorf("Nix gets\n%s", text)
	}
}
