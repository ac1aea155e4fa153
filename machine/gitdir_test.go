package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

func TestRepositoriesThatAreNotShared(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-ec", `git init -q app
git -C app -c user.email=a@b -c user.name=n commit -q --allow-empty -m one
git -C app worktree add -q ../fix
mkdir none fifo link odd
mkfifo fifo/.git
ln -s ../fix/.git link/.git
echo nothing >odd/.git`)
	cmd.Dir = top
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	share := func(name, target string) virtiofs.Share {
		return virtiofs.Share{Source: filepath.Join(top, name), Target: target}
	}
	same := func(name string) virtiofs.Share { return share(name, filepath.Join(top, name)) }
	git := filepath.Join(top, "app/.git")
	host := &Host{Dirs: layout.Dirs{State: filepath.Join(top, "state")}}
	cmd = exec.Command("sh", "-ec", `git -C app worktree add -q ../fix2; mkdir fake; cp fix/.git fake/.git; git -C app worktree add -q ../other`)
	cmd.Dir = top
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cow := share("fix", "fix")
	cow.ReadOnly, cow.CopyOnWrite = true, true
	for name, tt := range map[string]struct {
		shares []virtiofs.Share
		want   string
	}{
		"a worktree":                  {[]virtiofs.Share{share("fix", "fix")}, "fix app/.git[fix]"},
		"where it is":                 {[]virtiofs.Share{same("fix")}, "fix app/.git[fix]"},
		"elsewhere":                   {[]virtiofs.Share{share("fix", "/srv/fix")}, "/srv/fix"},
		"two of one repository":       {[]virtiofs.Share{share("fix", "fix"), share("fix2", "fix2")}, "fix fix2 app/.git[fix fix2]"},
		"with the repository":         {[]virtiofs.Share{share("fix", "fix"), same("app")}, "fix app"},
		"with the repository's place": {[]virtiofs.Share{same("app/.git"), share("fix", "fix")}, "app/.git fix"},
		"copy-on-write":               {[]virtiofs.Share{cow}, "fix:cow app/.git:cow[fix]"},
		"one of each":                 {[]virtiofs.Share{cow, share("fix2", "fix2")}, "fix:cow /home/agent/fix2 app/.git:cow[fix]"},
		"one that lies":               {[]virtiofs.Share{share("fake", "fake")}, "/home/agent/fake"},
		"no worktree":                 {[]virtiofs.Share{share("none", "none"), share("app", "app")}, "/home/agent/none /home/agent/app"},
	} {
		var got []string
		for _, s := range host.withRepositories(tt.shares) {
			text := guestPath(s.Target, "/home/agent")
			if rel, ok := strings.CutPrefix(text, top+"/"); ok {
				text = rel
			}
			if s.CopyOnWrite {
				text += ":cow"
			}
			if len(s.Rules.Worktrees) > 0 {
				text += fmt.Sprint(s.Rules.Worktrees)
			}
			got = append(got, text)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
	for name, tt := range map[string]struct {
		shares []virtiofs.Share
		want   []string
	}{
		"a repository":                {[]virtiofs.Share{share("app", "/home/agent/app")}, nil},
		"no repository":               {[]virtiofs.Share{share("none", "/n"), share("fifo", "/f"), share("link", "/l"), share("odd", "/o")}, nil},
		"a worktree":                  {[]virtiofs.Share{same("fix")}, []string{git}},
		"both in other places":        {[]virtiofs.Share{share("fix", "/fix"), share("app/.git", "/git")}, []string{git}},
		"the worktree elsewhere":      {[]virtiofs.Share{share("fix", "/fix"), same("app/.git")}, []string{git}},
		"both where they are":         {[]virtiofs.Share{same("fix"), same("app/.git")}, nil},
		"with the whole repository":   {[]virtiofs.Share{same("fix"), same("app")}, nil},
		"with the directory of both":  {[]virtiofs.Share{same("fix"), same(".")}, nil},
		"with another one's worktree": {[]virtiofs.Share{same("fix"), same("none")}, []string{git}},
	} {
		var got []string
		for _, far := range FarRepositories(tt.shares) {
			got = append(got, far.Directory)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q is not there, want %q", name, got, tt.want)
		}
	}
}
