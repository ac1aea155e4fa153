package supervisor

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestACloneIsMadeOnce runs the guest's part of it here.
func TestACloneIsMadeOnce(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("install git to run this test")
	}
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	top := t.TempDir()
	run := func(dir, script string, args ...string) string {
		t.Helper()
		cmd := exec.Command("sh", append([]string{"-c", script, "sh"}, args...)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	origin := filepath.Join(top, "app/.git")
	run(top, `git init -q -b main app && cd app && git config user.name x && git config user.email x@example.com
		echo 1 >a && git add a && git commit -q -m one && git branch fix && echo 2 >a && git commit -q -a -m two`)
	first := run(top, "git -C app rev-parse fix")
	clone := func(origin, head string) string {
		dir := t.TempDir()
		run(top, makeClone, origin, head, dir)
		return dir
	}
	for head, want := range map[string]string{"HEAD": "main 2", "main": "main 2", "fix": "fix 1", first: "HEAD 1"} {
		dir := clone(origin, head)
		if got := run(dir, "echo $(git rev-parse --abbrev-ref HEAD) $(cat a) $(git status --porcelain)"); got != want {
			t.Errorf("%s: %q, want %q", head, got, want)
		}
		if got := run(dir, "find .git -name alternates; ls -A"); got != ".git\na" {
			t.Errorf("%s: there is %q", head, got)
		}
	}
	// Of an origin that borrows, nothing is borrowed.
	run(top, "git clone -q --bare --shared app borrows.git")
	borrowed := clone(filepath.Join(top, "borrows.git"), "main")
	if got := run(borrowed, "find .git -name alternates; git fsck --full; cat a"); got != "2" {
		t.Errorf("of an origin that borrows there is %q", got)
	}
	// Its commits are told with what is not on a branch.
	tips := run(borrowed, `git checkout -q --detach; git config user.name x; git config user.email x@example.com
		git commit -q --allow-empty -m x; echo 5 >a; git stash -q; sh -c "$1" sh . | sort -u | git cat-file --batch-check='%(objecttype)' | sort | uniq -c | xargs`, listTips)
	if tips != "3 commit" {
		t.Errorf("its commits are %q, want those of main, HEAD and the stash", tips)
	}
	// What the guest does with it stays, whatever that is.
	dir := clone(origin, "HEAD")
	for _, does := range []string{"git checkout -q fix; echo 3 >a", "rm -rf .git; echo x >new", "rm -rf new .gitignore; mkdir .git"} {
		run(dir, does)
		before := run(dir, "ls -AR; cat a")
		run(top, makeClone, origin, "HEAD", dir)
		if after := run(dir, "ls -AR; cat a"); after != before {
			t.Errorf("after %s there is\n%s\nand not\n%s", does, after, before)
		}
	}
	// One that was interrupted: while objects were copied, and while files were checked out.
	for _, was := range []string{"mkdir -p .git-clone/.git/objects", `git clone -q --no-checkout "$1" .git && mv .git x && mv x/.git . && rmdir x && mkdir .git-clone && touch .git/index.lock && echo part >a`} {
		dir := t.TempDir()
		run(dir, was, origin)
		run(top, makeClone, origin, "HEAD", dir)
		if got := run(dir, "cat a; ls -A; git status --porcelain"); got != "2\n.git\na" {
			t.Errorf("after %s there is %q", was, got)
		}
	}
	run(top, "git init -q empty")
	if got := run(clone(filepath.Join(top, "empty/.git"), "HEAD"), "ls -A"); got != ".git" && !strings.Contains(got, "empty") {
		t.Errorf("of an empty repository there is %q", got)
	}
	if _, err := os.Stat(filepath.Join(top, "app/.git-clone")); err == nil {
		t.Error("the origin was written to")
	}
}
