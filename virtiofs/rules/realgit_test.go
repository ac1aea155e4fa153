package rules

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A tree is what there is in a directory, by path.
type tree map[string]entry

type entry struct {
	mode fs.FileMode
	text string // of a file, or the target of a link
}

func treeOf(t *testing.T, dir string) tree {
	t.Helper()
	all := tree{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		e := entry{mode: d.Type()}
		switch {
		case e.mode.IsRegular():
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			e.text = string(text)
		case e.mode&fs.ModeSymlink != 0:
			if e.text, err = os.Readlink(path); err != nil {
				return err
			}
		}
		all[rel] = e
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// refusals are what is refused of the changes from one tree to the next. A new file was made under another name first if it
// is Git's settings, which Git always does.
func refusals(s *Set, before, after tree) []string {
	var refused []string
	judge := func(a Access) {
		if v := s.Judge(a); v.Refused {
			refused = append(refused, a.Path+": "+v.Rule+": "+v.Reason)
		}
	}
	for path, e := range after {
		old, existed := before[path]
		a := Access{Path: path, Type: e.mode, Operation: Make, Link: e.text}
		if existed {
			if old == e {
				continue
			}
			a.Operation, a.Old = Write, content(old.text)
		}
		if e.mode.IsRegular() && isConfig(filepath.Base(path)) {
			a.Operation, a.Moved, a.Content = Make, true, content(e.text)
		}
		judge(a)
	}
	for path, e := range before {
		if _, ok := after[path]; !ok {
			judge(Access{Path: path, Type: e.mode, Operation: Remove, Empty: e.mode.IsDir(), Content: content(e.text)})
		}
	}
	return refused
}

// What Git does, of which nothing may be refused, or something has to be.
func TestWhatGitDoes(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	share := t.TempDir()
	home := t.TempDir()
	s := set(t, Choice{})
	before := treeOf(t, share)
	for _, step := range []struct{ script, want string }{
		{"git init -q a; cd a; git config user.name x; git config user.email y@z; echo 1 >f; git add f; git commit -qm 1", ""},
		{"git clone -q a b", ""},
		{"git clone -q --bare a c.git; git clone -q --mirror a d.git", "d.git/config: git-config: it sets remote.origin.mirror"},
		{"cd b; git remote add o ../c.git; git fetch -q o; git branch --set-upstream-to origin/master; git remote rename o p; git remote remove p", ""},
		{"cd b; git checkout -qb topic; echo 2 >>f; git stash -q; git stash pop -q; git commit -qam 2; git push -qu origin topic", ""},
		{"cd b; git checkout -q master; echo 3 >g; git add g; git commit -qm 3; git checkout -q topic; git rebase -q master; git merge -q master", ""},
		{"cd b; git branch -m topic x/y; git tag -am z z; git gc -q; git pack-refs --all; git branch -qD master", ""},
		{"cd b; git sparse-checkout set --cone d; git sparse-checkout disable", ""},
		{"cd b; git notes add -m x; git bisect start; git bisect reset", ""},
		{"cd b; git worktree add -q ../w", "w/.git: git-dir"},
		{"cd b; git -c protocol.file.allow=always submodule add -q $PWD/../c.git sub", "b/sub/.git: git-dir"},
		{"git init -q --separate-git-dir g.d h", "h/.git: git-dir"},
		{"git init -q --bare e", "e/HEAD: git-dir"},
		{"cd a; git config core.pager x", "a/.git/config: git-config: it sets core.pager"},
		{"cd a; git config --unset core.pager", "changes settings of yours"},
		{"cd a; git config alias.x y; true", "a/.git/config: git-config: it sets alias.x"},
		{"cd a; git config branch.x.remote .", ""},
		{"cd a; echo x >.git/hooks/pre-commit", "a/.git/hooks/pre-commit: git-hooks"},
		{"rm -rf b/.git/hooks/*", ""},
	} {
		cmd := exec.Command("sh", "-ec", step.script)
		cmd.Dir = share
		cmd.Env = append(os.Environ(), "HOME="+home, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+filepath.Join(home, "none"), "GIT_EDITOR=true",
			"GIT_CONFIG_COUNT=3", "GIT_CONFIG_KEY_0=user.name", "GIT_CONFIG_VALUE_0=x", "GIT_CONFIG_KEY_1=user.email", "GIT_CONFIG_VALUE_1=x@y",
			"GIT_CONFIG_KEY_2=init.defaultBranch", "GIT_CONFIG_VALUE_2=master")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", step.script, err, out)
		}
		after := treeOf(t, share)
		refused := strings.Join(refusals(s, before, after), "\n")
		if !strings.Contains(refused, step.want) || step.want == "" && refused != "" {
			t.Errorf("%s:\n%s\nwant %q", step.script, refused, step.want)
		}
		before = after
	}
}

func TestAWorktreeWritesWhatItNeedsOfItsRepository(t *testing.T) {
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
	run("git init -q app; cd app; git config user.name x; git config user.email x@example.com; echo 1 >a; git add a; git commit -q -m one; git branch more; git worktree add -q ../fix; git worktree add -q ../second; git worktree add -q ../other")
	s, err := New(Choice{Worktrees: []string{"fix", "second"}, Above: ".git"})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ script, want string }{
		{"cd fix; echo 2 >a; git add a; git commit -q -m two; git tag v1; git branch b1; git stash list", ""},
		{"cd fix; echo 3 >a; git stash -q; git stash pop -q; git checkout -q -b b2; git commit -q -a -m three; git rebase -q more 2>/dev/null || git rebase --abort", ""},
		{"cd fix; git repack -q -a -d; git prune; git pack-refs --all; git branch -D b1; git config branch.b2.description x", ""},
		{"cd second; git commit -q --allow-empty -m o; git reset -q --hard HEAD~", ""},
		{"cd fix; git config alias.x '!true'", "config: git-config"},
		{"cd fix; echo >../app/.git/hooks/pre-commit", "hooks/pre-commit: git-hooks"},
		{"cd other; git commit -q --allow-empty -m o", "worktrees/other/"},
		{"cd app; git commit -q --allow-empty -m o", "COMMIT_EDITMSG: git-worktree"},
		{"cd fix; git worktree add -q ../new", "worktrees/new: git-worktree"},
		{"cd fix; echo x >../app/.git/commondir", "commondir: git-dir"},
		{"echo x >app/.git/worktrees/fix/commondir", "worktrees/fix/commondir: git-dir"},
		{"echo x >app/.git/info/attributes", "info/attributes: git-worktree"},
		{"mkdir app/.git/worktrees/secondx; echo x >app/.git/worktrees/secondx/HEAD", "worktrees/secondx: git-worktree"},
	} {
		before := treeOf(t, filepath.Join(top, "app/.git"))
		run(test.script)
		refused := refusals(s, before, treeOf(t, filepath.Join(top, "app/.git")))
		all := strings.Join(refused, "\n")
		if (test.want == "") != (all == "") || !strings.Contains(all, test.want) {
			t.Errorf("%s: refused is\n%s\nwant %q", test.script, all, test.want)
		}
	}
}

func TestGitIgnoresWhatIsHidden(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("install git to run this test")
	}
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	s, err := New(Choice{Hide: []string{"customers/", "**/*.secret", "a\nb"}, Allow: []string{"**/.env.test", "customers/one"}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ignore"), []byte(strings.Join(s.Ignore(), "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("git", "init", "-q", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{
		".env", "a/.env", ".env.local", ".env.example", ".env.test", "a/.env.test", ".ssh/x", "id_rsa", "id_rsa.pub", "debug.keystore", "x.keystore",
		"customers/two", "customers/one", "a/customers/two", "a/x.secret", "main.go", ".npmrc", ".git/x", "b",
	} {
		cmd := exec.Command("git", "-c", "core.excludesFile="+filepath.Join(dir, "ignore"), "check-ignore", "-q", name)
		cmd.Dir = dir
		ignored := cmd.Run() == nil
		if v := s.Judge(Access{Operation: Read, Path: name}); v.Refused != ignored && !strings.HasPrefix(name, ".git/") {
			t.Errorf("%s is hidden: %v, and ignored: %v", name, v.Refused, ignored)
		}
	}
	if none, err := New(Choice{None: true}); err != nil || len(none.Ignore()) > 0 {
		t.Errorf("without rules: %q, %v", none.Ignore(), err)
	}
}
