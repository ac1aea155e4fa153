package machine

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

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
