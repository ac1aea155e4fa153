package virtiofs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/virtiofs/rules"
)

// gitRuns runs lines of git, each in a directory, as somebody without settings.
func gitRuns(t *testing.T, dir string, lines ...string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("install git to run this test")
	}
	for _, line := range lines {
		cmd := exec.Command("git", append([]string{"-c", "user.name=x", "-c", "user.email=x@example.com"}, strings.Fields(line)...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", line, err, out)
		}
	}
}

func TestAGuestGetsACloneOfTheRepositoryThatADirectoryBelongsTo(t *testing.T) {
	top := resolvedTempDir(t)
	gitRuns(t, top, "init -q -b main app", "-C app commit -q --allow-empty -m one", "-C app worktree add -q -b fix/it ../fix",
		"-C app worktree add -q --detach ../old", "clone -q --bare app app.git")
	sha := readLine(filepath.Join(top, "app/.git/refs/heads/main"))
	for name, want := range map[string]Share{
		"app":     {Source: filepath.Join(top, "app/.git"), Clone: CloneHead},
		"fix":     {Source: filepath.Join(top, "app/.git"), Clone: "fix/it"},
		"old":     {Source: filepath.Join(top, "app/.git"), Clone: sha},
		"app.git": {Source: filepath.Join(top, "app.git"), Clone: CloneHead},
	} {
		share, err := ParseShare(name+":work:clone", top)
		if err != nil {
			t.Fatal(err)
		}
		got, err := share.Admit(CheckOptions{})
		if err != nil || got.Source != want.Source || got.Clone != want.Clone || !got.ReadOnly || got.MountPoint() != "work.git" {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, want)
		}
		if again, err := got.Admit(CheckOptions{}); err != nil || again.Source != got.Source || again.Clone != got.Clone {
			t.Errorf("%s, admitted again: %+v, %v", name, again, err)
		}
	}
	mkdir(t, top, "none")
	gitRuns(t, top, "clone -q app part", "-C part config extensions.partialClone origin")
	for name, want := range map[string]string{
		"none": "is no repository of Git", "part": "whose settings have partialclone",
	} {
		share, err := ParseShare(name+":clone", top)
		if err == nil {
			_, err = share.Admit(CheckOptions{})
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", name, err, want)
		}
	}
}

func TestOfItsOriginAGuestReadsNoSecrets(t *testing.T) {
	top := resolvedTempDir(t)
	gitRuns(t, top, "init -q app")
	share, err := Share{Source: filepath.Join(top, "app"), Clone: CloneHead, ReadOnly: true}.Admit(CheckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	set, err := share.Judge(openDir(t, share.Source))
	if err != nil {
		t.Fatal(err)
	}
	for name, refused := range map[string]bool{
		".": false, "HEAD": false, "objects": false, "objects/pack/pack-1.pack": false, "objects/3f/ab": false, "refs/heads/a/b": false, "packed-refs": false,
		"config": true, "CONFIG": true, "config.worktree": true, "credentials": true, "hooks": true, "hooks/pre-push": true, "logs/HEAD": true, "worktrees/a/HEAD": true,
		"modules/a/config": true, "FETCH_HEAD": true, "lfs/objects/a": true,
	} {
		if v := set.Judge(rules.Access{Operation: rules.Read, Path: name}); v.Refused != refused {
			t.Errorf("reading %s is refused: %v", name, v.Refused)
		}
	}
	if !set.Hides() {
		t.Error("nobody is asked about reading")
	}
}

// A directory that a file in a share names as one of objects can have anything beside them.
func TestOfBorrowedObjectsAGuestReadsNothingElse(t *testing.T) {
	top := resolvedTempDir(t)
	gitRuns(t, top, "init -q app")
	share, err := ParseShare("app/.git/objects:same-path,objects", top)
	if err != nil {
		t.Fatal(err)
	}
	if share, err = share.Admit(CheckOptions{}); err != nil || !share.ReadOnly || share.String() != share.Source+":"+share.Source+":objects" {
		t.Fatalf("%+v, %v", share, err)
	}
	set, err := share.Judge(openDir(t, share.Source))
	if err != nil {
		t.Fatal(err)
	}
	sha := strings.Repeat("a", 38)
	for name, refused := range map[string]bool{
		".": false, "3f": false, "3f/" + sha: false, "pack": false, "pack/pack-1.pack": false, "pack/multi-pack-index": false, "info": false,
		"info/commit-graphs/commit-graph-chain": false, "info/alternates": false,
		"id_rsa": true, "key.pem": true, "config": true, "3f/key": true, "3f/" + sha + "/key": true, "pack/key": true, "info/key": true, "3F": true, "ssh/a": true, "3f3/a": true,
	} {
		if v := set.Judge(rules.Access{Operation: rules.Read, Path: name}); v.Refused != refused {
			t.Errorf("reading %s is refused: %v", name, v.Refused)
		}
	}
	if _, err := ParseShare("app/.git/objects:objects,allow=config", top); err == nil {
		t.Error("more of it can be allowed")
	}
}

func TestASubmoduleIsOneIfItsRepositorySaysSo(t *testing.T) {
	top := resolvedTempDir(t)
	gitRuns(t, top, "init -q -b main lib", "-C lib commit -q --allow-empty -m one", "init -q app",
		"-C app -c protocol.file.allow=always submodule add -q ../lib lib", "init -q --separate-git-dir elsewhere apart")
	mkdir(t, top, "fake")
	for name, content := range map[string]string{"fake/.git": "gitdir: ../app/.git/modules/lib\n", "elsewhere/config": "[core]\n\tworktree = ../fake\n"} {
		if err := os.WriteFile(filepath.Join(top, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"app/lib": filepath.Join(top, "app/.git/modules/lib"), "fake": "", "apart": "", "app": "", "lib": ""} {
		if got := SubmoduleOf(filepath.Join(top, name)); got != want {
			t.Errorf("%s is a submodule of %q, want %q", name, got, want)
		}
	}
}
