//go:build linux

package guest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/boot"
)

func TestGitTrustsSharesAndNothingElse(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"etc", "run"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	own := filepath.Join(root, "etc/gitconfig")
	if err := os.WriteFile(own, []byte("[init]\n\tdefaultBranch = main"), 0o644); err != nil {
		t.Fatal(err)
	}
	user := boot.User{Home: "/home/agent"}
	for _, mounts := range [][]agent.Mount{
		{{Tag: "share0", Target: "old"}},
		{{Tag: "home", Target: "/home/agent"}, {Tag: "share0", Target: `it is "here"\now`}, {Tag: "share1", Target: "/srv/x"}},
	} {
		if err := trustShares(root, user, mounts); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(own)
	if want := "[init]\n\tdefaultBranch = main\n[include]\n\tpath = /run/sandbox-agent.gitconfig\n"; err != nil || string(text) != want {
		t.Errorf("the system's file: %q, %v; want %q", text, err, want)
	}
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("install git to see how it reads the file")
	}
	out, err := exec.Command(git, "config", "--file", filepath.Join(root, "run/sandbox-agent.gitconfig"), "--get-all", "safe.directory").CombinedOutput()
	want := []string{`/home/agent/it is "here"\now`, `/home/agent/it is "here"\now/*`, "/srv/x", "/srv/x/*", ""}
	if err != nil || string(out) != strings.Join(want, "\n") {
		t.Errorf("git reads %q, %v; want %q", out, err, want)
	}
}

func TestGitConfigOfASystemThatMakesItAnewIsLeftAlone(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"etc", "run"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/static/gitconfig", filepath.Join(root, "etc/gitconfig")); err != nil {
		t.Fatal(err)
	}
	if err := trustShares(root, boot.User{Home: "/home/agent"}, nil); err != nil {
		t.Fatal(err)
	}
	if link, err := os.Readlink(filepath.Join(root, "etc/gitconfig")); err != nil || link != "/etc/static/gitconfig" {
		t.Errorf("%q, %v", link, err)
	}
}
