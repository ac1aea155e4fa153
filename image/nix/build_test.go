package nix

import (
	"path/filepath"
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
