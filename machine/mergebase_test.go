package machine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

func TestWhatAShareBeginsWithIsKeptWhereGitKnowsIt(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("install git to run this test")
	}
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	top := t.TempDir()
	run := func(script string) {
		t.Helper()
		cmd := exec.Command("sh", "-ec", script)
		cmd.Dir = top
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	executed := filepath.Join(top, "executed")
	run(`git init -q app; cd app; git config user.name x; git config user.email x@example.com
		mkdir dir; echo clean >dir/clean; echo old >"mo di:fied"; echo gone >gone; head -c 2000000 /dev/zero >large
		git init -q sub; git -C sub -c user.name=x -c user.email=x@example.com commit -q --allow-empty -m sub; git add . 2>/dev/null; git commit -q -m one
		echo new >"mo di:fied"; echo new >unknown; rm gone; echo x >sub/x
		for c in .git/config sub/.git/config; do printf '[core]\n\tfsmonitor = "touch ` + executed + `; false"\n' >>$c; done`)
	before := sizesIn(t, filepath.Join(top, "app"))
	host := &Host{Dirs: layout.Dirs{State: filepath.Join(top, "state")}}
	s := &Sandbox{Name: "work", host: host}
	share := virtiofs.Share{Source: filepath.Join(top, "app"), Target: "/home/agent/app", CopyOnWrite: true}
	none := virtiofs.Share{Source: t.TempDir(), Target: "/srv/none", CopyOnWrite: true}
	if err := s.keepMergeBases(t.Context(), Config{Access: Access{Shares: []virtiofs.Share{share, none}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(executed); err == nil {
		t.Error("what the settings say was executed")
	}
	if after := sizesIn(t, filepath.Join(top, "app")); after != before {
		t.Errorf("the repository has changed: there is\n%s\nand there was\n%s", after, before)
	}
	run("echo later >app/dir/clean; cd app; git -c core.fsmonitor= commit -q -a -m two")
	base := s.baseOf(share)
	for name, want := range map[string]string{
		"dir/clean": "clean\n", "mo di:fied": "new\n", "gone": "gone\n", "unknown": "", "large": "", "sub": "", "dir": "", "-x": "", "../a": "",
	} {
		got, err := base(t.Context(), name)
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%s: %d bytes, %.20q, %v; want %q", name, len(got), got, err, want)
		}
	}
	if s.baseOf(none) != nil {
		t.Error("of a directory without a repository something is known")
	}
}

// sizesIn lists a directory with the sizes of its files.
func sizesIn(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.Command("find", dir, "-type", "f", "-printf", "%P %s\n").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
