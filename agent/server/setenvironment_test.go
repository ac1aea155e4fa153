//go:build linux

package server

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// nixosScript is shaped like NixOS's own.
const nixosScript = `# DO NOT EDIT -- this file has been generated automatically.
export __NIXOS_SET_ENVIRONMENT_DONE=1
export EDITOR="vim"
export NIX_PROFILES="/nix/var/nix/profiles/default $HOME/.nix-profile"
export PATH="$HOME/.nix-profile/bin:/etc/profiles/per-user/$USER/bin:/run/current-system/sw/bin"
export LINES_OF="one
two"
if [ -e "$HOME/no/such/file" ]; then export NIX_PATH=wrong; fi
here=not-exported
echo noise
export PATH="/run/wrappers/bin:$PATH"
export TERM=$TERM
echo again >>"$HOME/runs"
`

func TestScriptOfNixOSReachesPlainCommands(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "set-environment")
	user := User{Name: "agent", UID: os.Getuid(), GID: os.Getgid(), Home: dir, Shell: "/bin/sh"}
	s := &scriptSettings{path: path, starter: &Starter{}}
	if got, err := s.of(t.Context(), user); got != nil || err != nil {
		t.Errorf("without a script: %q, %v", got, err)
	}

	write(t, path, nixosScript)
	want := []string{
		"EDITOR=vim",
		"LINES_OF=one\ntwo",
		"NIX_PROFILES=/nix/var/nix/profiles/default " + dir + "/.nix-profile",
		"PATH=/run/wrappers/bin:" + dir + "/.nix-profile/bin:/etc/profiles/per-user/agent/bin:/run/current-system/sw/bin",
		"__NIXOS_SET_ENVIRONMENT_DONE=1",
	}
	for range 2 {
		got, err := s.of(t.Context(), user)
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("got %q, %v\nwant %q", got, err, want)
		}
	}
	if runs, err := os.ReadFile(filepath.Join(dir, "runs")); err != nil || string(runs) != "again\n" {
		t.Errorf("it should run once: %q, %v", runs, err)
	}

	write(t, path, "export EDITOR=emacs\nexit 3\n")
	if err := os.Chtimes(path, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if got, err := s.of(t.Context(), user); err == nil || !strings.Contains(err.Error(), "exit status 3") || got != nil {
		t.Errorf("a script that fails: %q, %v", got, err)
	}
}
