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

// TestExportsAreAsInAShell reads scripts without a shell, and compares what a
// shell makes of the same.
func TestExportsAreAsInAShell(t *testing.T) {
	user := User{Name: "agent", UID: os.Getuid(), GID: os.Getgid(), Home: "/home/agent", Shell: "/bin/sh"}
	env := environ(user, "", nil)
	s := &scriptSettings{starter: &Starter{}}
	shell := func(script string) []string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "script")
		write(t, path, script)
		after, err := s.run(t.Context(), path, user, env)
		if err != nil {
			t.Fatal(err)
		}
		after = slices.DeleteFunc(after, func(setting string) bool {
			return strings.HasPrefix(setting, "PWD=") || strings.HasPrefix(setting, "_=") || strings.HasPrefix(setting, "SHLVL=") || strings.HasPrefix(setting, "OLDPWD=")
		})
		slices.Sort(after)
		return after
	}
	for _, script := range []string{
		"",
		"# a comment\n\n  # another\nexport ONE=1\nexport TWO=\"$ONE${ONE} two's, (three) ; & | * ? ~ # >\" \nexport THREE=",
		"export LINES_OF=\"one\n\ntwo\"\nexport NONE=\"\"\nexport XDG=\"${XDG_NO_SUCH_HOME}/nix\"\n",
		"\texport PATH=\"/run/wrappers/bin:$PATH\"\nexport PATH=\"$HOME/.local/bin:$PATH\"\nexport AT=a@b%c+d,e-f_g.h:$USER\n",
	} {
		after, ok := exports(script, env)
		slices.Sort(after)
		if want := shell(script); !ok || !slices.Equal(after, want) {
			t.Errorf("%q sets %q, %v\na shell:\n%q", script, after, ok, want)
		}
	}
	for _, script := range []string{
		"export A=$(id)", "export A=\"$(id)\"", "export A=`id`", "export A=\"`id`\"", "export A=\"\\\"\"", "export A='a'",
		"export A=\"a\"b", "export A=\"a", "export A=a b", "export A=~", "export A=*", "export A={a,b}", "export A=a;id", "export A=a\\\nb",
		"export A", "export -n A=a", "A=a", "unset A", "if true; then", "export A=a # why", "export A=\"${B:-b}\"", "export A=\"$UID\"",
		"export A=\"$\"", "export A=\"$$\"", "export A=\"$1\"", "export 1=a", "echo", "export A=$B",
	} {
		if after, ok := exports(script, env); ok {
			t.Errorf("%q is for a shell, and was read as %q", script, after)
		}
	}
}
