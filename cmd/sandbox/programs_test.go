package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestExamplePrograms runs the programs that show how a Go program uses package machine.
func TestExamplePrograms(t *testing.T) {
	dirs := guestDirs(t)
	bin := t.TempDir()
	buildProgram(t, "build", "-o", bin, "../../examples/...")
	runtime, err := os.MkdirTemp("", "sb") // short, for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(runtime) })
	state, shared := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(shared, "a file"), []byte("a\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, example := range []struct {
		argv []string
		code int
		want []string
	}{
		{[]string{"run", shared, "sh", "-c", `wc -l <"a file"; echo complaint >&2; exit 7`}, 7, []string{"2\n", "\ncomplaint\n"}},
		{[]string{"forks"}, 0, []string{`sort: "a\nb\nc\n"`, `sort -r: "c\nb\na\n"`, `wc -l: "3\n"`}},
		{[]string{"checkpoint"}, 0, []string{"No such file or directory", "after the restore: years of work\n"}},
	} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, example.argv[0]), example.argv[1:]...)
		cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+filepath.Dir(dirs.Data), "XDG_CACHE_HOME="+filepath.Dir(dirs.Cache),
			"XDG_STATE_HOME="+state, "XDG_RUNTIME_DIR="+runtime, "SANDBOX_IMAGE="+testImage())
		out, err := cmd.CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok || ok && exit.ExitCode() != example.code || err == nil && example.code != 0 {
			t.Errorf("%s: %v", example.argv[0], err)
		}
		for _, want := range example.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s says\n%s, and not %q", example.argv[0], out, want)
			}
		}
	}
	left, err := filepath.Glob(filepath.Join(state, "sandbox", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}
