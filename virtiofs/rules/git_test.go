package rules

import (
	"strings"
	"testing"
)

func TestGit(t *testing.T) {
	judged(t, set(t, Choice{}), `
		ok make-dir .git
		git-dir make .git
		git-dir write .git
		git-dir make-moved .git
		git-dir remove .git
		git-dir make-link .git
		git-dir make-dir-moved .git
		git-dir make-dir-moved sub/.git
		git-dir remove-dir .git
		ok remove-dir-empty .git
		ok change-dir .git
		git-dir make-dir-moved x.git
		git-dir remove-dir x.git
		ok make x.git
		ok make-moved .git/HEAD
		ok make .git/HEAD.lock
		ok make-moved .git/index
		ok make-dir .git/objects/ab
		ok make-dir .git/objects/info
		git-dir make .git/objects/info/alternates
		git-dir make-moved .git/objects/info/Alternates
		git-dir write sub/.git/modules/a/objects/info/alternates
		git-dir make x.git/objects/info/alternates
		ok remove .git/objects/info/alternates
		ok make .git/refs/heads/objects/info/alternates
		ok make-moved .git/objects/ab/cdef
		ok make .git/rebase-merge/git-rebase-todo
		ok make-moved .git/refs/heads/hooks
		ok make .git/refs/heads/hooks/x
		ok make .git/logs/refs/heads/config
		ok make-moved .git/refs/heads/config
		ok make-moved .git/refs/remotes/origin/HEAD
		ok remove .git/refs/heads/x
		ok remove-dir-empty .git/refs/heads/feature
		git-dir remove-dir .git/refs
		git-dir make-dir-moved .git/modules/sub
		git-dir make-dir-moved .git/refs/heads/x
		git-dir make-link .git/modules
		git-dir make .git/commondir
		git-dir write .git/worktrees/w/commondir
		git-dir make .git/remotes/origin
		git-dir make .git/branches/x
		ok make-dir .git/branches
		git-dir make HEAD
		git-dir make-moved docs/HEAD
		git-dir make-link docs/HEAD
		git-dir write docs/HEAD
		ok read docs/HEAD
		ok remove docs/HEAD
		ok make x.git/HEAD
		ok make-dir .git/hooks
		ok remove-dir-empty .git/hooks
		git-dir make-dir-moved .git/hooks
		git-dir make-link .git/hooks
		git-hooks make .git/hooks
		git-hooks make .git/hooks/pre-commit
		git-hooks make-moved .git/hooks/pre-commit
		git-hooks write .git/hooks/pre-commit
		git-hooks change .git/hooks/pre-commit
		git-hooks remove .git/hooks/pre-commit
		ok read .git/hooks/pre-commit
		ok make .git/hooks/pre-commit.sample
		ok remove .git/hooks/pre-commit.sample
		git-hooks make-moved .git/hooks/pre-commit.sample
		git-hooks write .git/hooks/pre-commit.sample
		git-hooks make .git/hooks/x/y.sample
		git-hooks make .git/modules/a/b/hooks/post-checkout
		git-hooks make .git/worktrees/w/hooks/post-checkout
		git-hooks make repo.git/hooks/update
		git-hooks make .git/refs/heads/.git/hooks/pre-commit
		ok make .git/config.lock
		git-config make .git/config
		git-config make-moved .git/config
		git-config write .git/config
		git-dir make-link .git/config
		ok change .git/config
		git-config remove .git/config
		git-config make .git/modules/sub/config
		git-config make .git/worktrees/w/config.worktree
		ok make-dir .git/modules/config
	`)
	probe := Access{Operation: Make, Path: ".git/tGCYXTS", Type: what(t, "make-link x").Type, Link: "testing"}
	if v := set(t, Choice{}).Judge(probe); v.Refused {
		t.Errorf("git init finds no links: %+v", v)
	}
}

const fresh = `[core]
	repositoryformatversion = 0
	filemode = true
	bare = false
	logallrefupdates = true
`

func TestGitConfig(t *testing.T) {
	s := set(t, Choice{})
	for _, test := range []struct{ old, new, want string }{
		{"", fresh, ""},
		{fresh, fresh + "[remote \"origin\"]\n\turl = https://github.com/x/y.git\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n[branch \"main\"]\n\tremote = origin\n\tmerge = refs/heads/main\n", ""},
		{"", "[user]\n\tname = \"A # B\" ; c\n\temail = a@b\n", ""},
		{"", "", ""},
		{"", "# nothing\n;nothing", ""},
		{"", "[core]\n\tfsmonitor = false\n", "core.fsmonitor"},
		{"", "[core]hooksPath=x", "core.hookspath"},
		{"", "[CORE] HooksPath = x\n", "core.hookspath"},
		{"", "[core]\nbare\\\n = x", "not written as Git writes"},
		{"", "[user]\nname = x \\\n[core]\nhooksPath = y\n", "user.hookspath"},
		{"", "[user]\nname = x \\\nhooksPath = y\n", ""},
		{"", "[core \"x\"]\nhooksPath = y\n", "core.x.hookspath"},
		{"", "[remote.origin]\nurl = x\n", "not written as Git writes"},
		{"", "\ufeff" + fresh, "not written as Git writes"},
		{"", strings.ReplaceAll(fresh, "\n", "\r\n"), "not written as Git writes"},
		{"", fresh + "\x00", "not written as Git writes"},
		{"", "[include]\npath = ../x\n", "include.path"},
		{"", "[includeIf \"gitdir:/\"]\npath = ../x\n", "includeif.gitdir:/.path"},
		{"", "[alias]\nst = !x\n", "alias.st"},
		{"", "[filter \"x\"]\nclean = y\n", "filter.x.clean"},
		{"", "[core]\nworktree = ../../sub\n", "core.worktree"},
		{"", "[remote \"a\"]\nurl = ext::sh -c x\n", "remote.a.url"},
		{"", "[remote \"a\"]\nvcs = x\n", "remote.a.vcs"},
		{"", "[remote \"a\"]\nuploadpack = x\n", "remote.a.uploadpack"},
		{"", "[branch \"a\"]\nremote = ext::sh\n", "branch.a.remote"},
		{"", "[branch \"a\"]\nremote = https://github.com/x/y.git\n", ""},
		{"", "[branch \"a\"]\nmergeoptions = -s x\n", "branch.a.mergeoptions"},
		{"", "[submodule \"a\"]\nupdate = !x\n", "submodule.a.update"},
		{"", "[user]\nname = \"a\\nb\"\n", "user.name"},
		{"", "[url \"x\"]\ninsteadOf = y\n", "url.x.insteadof"},
		{"", "name = x\n", "not written as Git writes"},
		{"", "[user]\nname = \"x\n", "not written as Git writes"},
		{"", "[user] garbage here\n", "not written as Git writes"},
		{"", strings.Repeat("#", MaxContent+1), "larger"},
		// The user's own settings stay.
		{fresh + "[alias]\n\tst = !x\n", fresh + "[alias]\n\tst = !x\n[branch \"b\"]\n\tremote = .\n", ""},
		{"[alias]\n\tst = !x\n\tci = !y\n", "[alias]\nst=!x\n[user]\nname=z\n[alias]\nci = \"!y\"\n", ""},
		{"[alias]\n\tst = !x\n", "[alias]\n\tst = !y\n", "alias.st"},
		{"[alias]\n\tst = !x\n", fresh, "settings of yours"},
		{"[alias]\n\tst = !x\n\tci = !y\n", "[alias]\n\tci = !y\n\tst = !x\n", "settings of yours"},
		{"[alias]\r\n", fresh, "cannot be compared"},
	} {
		a := Access{Operation: Make, Path: ".git/config", Moved: true, Content: content(test.new)}
		if test.old != "" {
			a.Old = content(test.old)
		}
		v := s.Judge(a)
		if v.Refused != (test.want != "") || !strings.Contains(v.Reason, test.want) {
			t.Errorf("%q after %q: %+v, want %q", test.new, test.old, v, test.want)
		}
	}
	for text, refused := range map[string]bool{fresh: false, "[alias]\nx = y\n": true} {
		if v := s.Judge(Access{Operation: Remove, Path: ".git/config", Content: content(text)}); v.Refused != refused {
			t.Errorf("remove %q: %+v", text, v)
		}
	}
}

func TestGitURLs(t *testing.T) {
	for text, want := range map[string]bool{
		"https://github.com/x/y.git": true, "HTTPS://user@host:8443/x": true, "git@github.com:x/y.git": true,
		"ssh://git@host:22/x": true, "../x": true, "/srv/x.git": true, "file:///srv/x.git": true, ".": true, "C:/x": true,
		"ext::sh -c x": false, "fd::7": false, "-oProxyCommand=x": false, "ssh://-oProxyCommand=x/y": false, "": false,
		"ssh://user@-oProxyCommand=x/y": false, "ssh://%2DoProxyCommand=x/y": false, "foo://x": false, "user@-x:y": false,
		"host:-x": false, "-x:y": false, "persistent-https://x": false, "ssh://host/-x": false,
	} {
		if got := isURL(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
