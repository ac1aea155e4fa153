package machine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatIsNotCommittedIsNoticedAndNothingExecuted(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("install git to run this test")
	}
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	top := t.TempDir()
	git := func(line string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=x", "-c", "user.email=x@example.com"}, strings.Fields(line)...)...)
		cmd.Dir = top
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", line, err, out)
		}
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(top, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dirty := func(dir string) bool { return HasUncommitted(t.Context(), filepath.Join(top, dir)) }
	git("init -q app")
	write("app/.gitignore", "*.o\n")
	write("app/a", "a\n")
	git("-C app add .")
	git("-C app commit -q -m one")
	git("-C app worktree add -q ../fix")
	write("app/x.o", "ignored\n")
	if dirty("app") || dirty("fix") {
		t.Error("all is committed")
	}
	// What a repository may tell Git to execute.
	executed := filepath.Join(top, "executed")
	write("app/.git/config", "[core]\n\tfsmonitor = \"touch "+executed+"; false\"\n[filter \"f\"]\n\tclean = \"touch "+executed+"; cat\"\n")
	write("app/.gitattributes", "* filter=f\n")
	write("app/a", "b\n")
	if !dirty("app") {
		t.Error("a file was changed")
	}
	if _, err := os.Stat(executed); err == nil {
		t.Error("what the settings say was executed")
	}
	write("fix/new", "")
	if !dirty("fix") {
		t.Error("a file is new")
	}
	if HasUncommitted(t.Context(), t.TempDir()) {
		t.Error("a directory without a repository has none")
	}
}
