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

func TestGitIgnoresWhatCannotBeReadInAShare(t *testing.T) {
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("install git to see what it ignores")
	}
	root := t.TempDir()
	for _, dir := range []string{"etc", "run"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	shared, own := filepath.Join(root, "it's [a] share"), filepath.Join(root, "own")
	mounts := []agent.Mount{{Tag: "share0", Target: shared, Unreadable: "**/.env\n**/.env.*\n!**/.env*.example\n/private/**\n"}, {Tag: "share1", Target: "/x"}}
	if err := trustShares(root, boot.User{Home: "/home/agent"}, mounts); err != nil {
		t.Fatal(err)
	}
	// The guest's root is another one here.
	for _, name := range []string{sharesGitConfig, ignoredInShares + "share0"} {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(root, name), []byte(strings.ReplaceAll(string(text), `"/run/`, `"`+root+"/run/")), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for dir, want := range map[string]string{
		shared: "A  .env.example\nA  main.c\nA  sub/private/x\n",
		own:    "A  .env\nA  .env.example\nA  .env.local\nA  main.c\nA  private/x\nA  sub/.env\nA  sub/private/x\n",
	} {
		for _, name := range []string{"main.c", ".env", ".env.local", ".env.example", "private/x", "sub/.env", "sub/private/x"} {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for _, args := range [][]string{{"init", "-q"}, {"add", "-A"}, {"status", "--porcelain"}} {
			cmd := exec.Command(git, args...)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+filepath.Join(root, sharesGitConfig))
			out, err := cmd.CombinedOutput()
			if err != nil || args[0] == "status" && string(out) != want {
				t.Errorf("git %v in %s: %v\n%s\nwant\n%s", args, dir, err, out, want)
			}
		}
	}
}
