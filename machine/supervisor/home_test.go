package supervisor

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

// homeOf returns the only line in the home.
func homeOf(t *testing.T, s *machine.Sandbox) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.Files().Home(), "note"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestHomeIsTakenBackUntilTheRestoreIsOver(t *testing.T) {
	s := create(t).s
	writeFile(t, filepath.Join(s.Files().Home(), "note"), "now")
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, layout.HomeDir), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, layout.HomeDir, "note"), "then")
	restoring := func() *supervisor {
		v := testSupervisor(s)
		v.saved, v.withHome = &saved{dir: dir}, true
		return v
	}
	for what, interrupt := range map[string]func() error{
		"after the home was replaced": func() error { return nil },
		"before it was":               func() error { return os.RemoveAll(s.Files().Home()) },
	} {
		if err := restoring().restoreHome(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := homeOf(t, s); got != "then" {
			t.Errorf("%s: restored is %q", what, got)
		}
		if err := interrupt(); err != nil {
			t.Fatal(err)
		}
		// The next start, whatever it is for, has the home of before.
		if err := testSupervisor(s).restoreHome(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := homeOf(t, s); got != "now" {
			t.Errorf("an end %s leaves %q", what, got)
		}
	}
	if err := restoring().restoreHome(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := durable.RemoveDir(s.Files().Path(layout.HomeBefore)); err != nil { // as at the end of a restore
		t.Fatal(err)
	}
	if err := testSupervisor(s).recoverHome(); err != nil {
		t.Fatal(err)
	}
	if got := homeOf(t, s); got != "then" {
		t.Errorf("a restore that was over leaves %q", got)
	}
}
