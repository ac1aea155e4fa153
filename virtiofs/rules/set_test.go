package rules

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
)

// what is an access in a table: "make .vscode/tasks.json", with marks for what else is known of it.
func what(t *testing.T, text string) Access {
	t.Helper()
	operation, path, _ := strings.Cut(text, " ")
	a := Access{Path: path}
	for _, mark := range strings.Split(operation, "-") {
		switch mark {
		case "read":
			a.Operation = Read
		case "make":
			a.Operation = Make
		case "write":
			a.Operation = Write
		case "change":
			a.Operation = Change
		case "remove":
			a.Operation = Remove
		case "dir":
			a.Type = fs.ModeDir
		case "link":
			a.Type = fs.ModeSymlink
		case "moved":
			a.Moved = true
		case "empty":
			a.Empty = true
		case "setuid":
			a.Type |= fs.ModeSetuid
		case "setgid":
			a.Type |= fs.ModeSetgid
		case "device":
			a.Type = fs.ModeDevice
		case "key":
			a.Content = content("-----BEGIN EC PRIVATE KEY-----")
		case "certificate":
			a.Content = content("-----BEGIN CERTIFICATE-----")
		case "broken":
			a.Content = func() ([]byte, error) { return nil, errors.New("is gone") }
		default:
			t.Fatalf("%q: what is %q?", text, mark)
		}
	}
	return a
}

func content(text string) func() ([]byte, error) {
	return func() ([]byte, error) { return []byte(text), nil }
}

func set(t *testing.T, c Choice) *Set {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// judged compares the names of rules that refuse what stands in the lines of a table with what stands before them.
func judged(t *testing.T, s *Set, table string) {
	t.Helper()
	for line := range strings.SplitSeq(strings.TrimSpace(table), "\n") {
		want, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		text = strings.TrimSpace(text)
		v := s.Judge(what(t, text))
		got := v.Rule
		if !v.Refused {
			got = "ok"
		}
		if got != want || v.Refused && v.Reason == "" {
			t.Errorf("%s: %s (%s), want %s", text, got, v.Reason, want)
		}
	}
}

func TestOrdinaryWork(t *testing.T) {
	judged(t, set(t, Choice{}), `
		ok make main.go
		ok write main.go
		ok remove main.go
		ok make-moved main.go
		ok make-dir src
		ok make-dir-moved app2
		ok remove-dir app
		ok remove-dir-empty src
		ok change .
		ok change-dir-setgid src
		ok make-link node_modules/.bin/eslint
		ok write Makefile
		ok make package.json
		ok write .github/workflows/ci.yml
		ok make-dir .github
		ok make-dir .vscode
		ok make .vscode/snippets.code-snippets
		ok make-dir .claude
		ok make .claude/notes.md
		ok make .env.example
		ok read .env.local.example
		ok make-dir-moved config
		ok remove-dir config
		ok read .npmrc
		ok read .envrc
		ok read-certificate node_modules/x/cacert.pem
		ok write-certificate cert.pem
		ok make cert.pem
		ok make-moved-certificate cert.pem
		ok make id_rsa.pub
		ok read android/app/debug.keystore
		ok make .gitignore
		ok write .gitattributes
		ok make .gitmodules
		ok make src/head
		ok make-dir HEAD
		ok make hooks/pre-commit
		ok make hooks/.git.md
		ok write config
	`)
}

func TestFrozen(t *testing.T) {
	judged(t, set(t, Choice{}), `
		git-tools make-dir .husky
		git-tools make .husky/pre-commit
		git-tools make a/b/.husky/_/pre-push
		git-tools write .husky/pre-commit
		git-tools change .husky/pre-commit
		git-tools remove .husky/pre-commit
		git-tools remove-dir .husky
		git-tools make-dir-moved .husky
		git-tools make-link .husky
		ok read .husky/pre-commit
		git-tools make .pre-commit-config.yaml
		git-tools make-moved lefthook.yml
		editor make .vscode/tasks.json
		editor write packages/web/.vscode/settings.json
		editor make-dir-moved .vscode
		editor make-link .vscode
		editor remove-dir .vscode
		ok remove-dir-empty .vscode
		editor make app.code-workspace
		editor make-dir .idea
		ai-agent make-dir-moved .github
		ai-agent make .github/hooks/pre.json
		ai-agent make .mcp.json
		ai-agent make .claude/settings.local.json
		ai-agent make-dir-moved .claude
		shell make .envrc
		shell write .direnv/flake-profile.rc
		devcontainer make .devcontainer/x/devcontainer.json
		packages make sub/.npmrc
		packages write .cargo/config.toml
		startup make .Rprofile
		other-vcs write .hg/hgrc
		other-vcs make-dir-moved .hg
		device make-device x
		set-id make-setuid x
		set-id change-setgid x
	`)
}

func TestHidden(t *testing.T) {
	judged(t, set(t, Choice{}), `
		env read .env
		env make .env
		env write .env.local
		env remove a/.env
		env change .env
		env read .env.production
		login read .aws/credentials
		login remove-dir .aws
		login make-dir-moved .aws
		login read .docker/config.json
		ok read .docker/Dockerfile
		login read-dir .kube
		login read .netrc
		login read .codex/auth.json
		ai-agent write .codex/auth.json
		key read .ssh/id_ed25519.pub
		key read id_ed25519
		key read release.keystore
		key-file read-key server.pem
		key-file read server.pem
		key-file read-broken server.pem
		key-file write-key server.pem
		key-file remove-key server.pem
		key-file change-key server.pem
		key-file make-moved-key server.pem
		ok remove-certificate server.pem
		ok read-dir x.key
		key-file read-key my-service-account-1.json
	`)
	over := Access{Operation: Make, Path: "a.pem", Moved: true, Content: content("x"), Old: content("PRIVATE KEY")}
	if v := set(t, Choice{}).Judge(over); v.Rule != "key-file" {
		t.Errorf("a key can be replaced: %+v", v)
	}
}

// Names that some file system takes for the ones that rules are for.
func TestOtherFormsOfNames(t *testing.T) {
	judged(t, set(t, Choice{}), `
		git-hooks make .GIT/Hooks/pre-commit
		git-hooks make .git./hooks/pre-commit
		git-hooks make .git:$INDEX_ALLOCATION/hooks/pre-commit
		git-hooks make .git::$INDEX_ALLOCATION/hooks/pre-commit
		git-hooks make GIT~1/hooks/pre-commit
		git-hooks make .gi`+"\u200c"+`t/hooks/pre-commit
		git-hooks make .git`+"\ufeff"+`/hooks/pre-commit
		git-hooks make .git/hoo`+"\u212a"+`s/pre-commit
		git-hooks make .git/hook`+"\u017f"+`/pre-commit
		git-config write .git/con`+"\ufb01"+`g
		git-tools make .hu`+"\u017f"+`ky/pre-commit
		shell make .ENVRC
		env read .Env
		env read .env.
		login read .pgpa`+"\u00df"+`
		editor make .VSCode/Tasks.json
		git-dir make .GIT
		ok make .git`+"\xff"+`/x
		ok make GIT~x
	`)
}

func TestPathsThatAreNone(t *testing.T) {
	for _, path := range []string{"", "/", "/etc/passwd", "..", "../x", "a/../b", "a//b", "./a", "a/", "a\x00b"} {
		if v := set(t, Choice{}).Judge(Access{Operation: Read, Path: path}); !v.Refused {
			t.Errorf("%q is allowed", path)
		}
	}
}

func TestChoice(t *testing.T) {
	judged(t, set(t, Choice{None: true}), `
		ok make .git/hooks/pre-commit
		ok read .env
		ok make .git
	`)
	judged(t, set(t, Choice{None: true, Refuse: []string{"deploy/prod.yaml", "**/AGENTS.md", "vendor/"}, Hide: []string{"private"}}), `
		ok make .git/hooks/pre-commit
		refuse=deploy/prod.yaml write Deploy/prod.yaml
		refuse=deploy/prod.yaml remove-dir deploy
		refuse=deploy/prod.yaml make-dir-moved deploy
		ok make a/deploy/prod.yaml
		ok make deploy/test.yaml
		refuse=**/AGENTS.md make agents.md
		refuse=**/AGENTS.md make a/b/AGENTS.md
		ok read AGENTS.md
		refuse=vendor/ write vendor/a/b.go
		refuse=vendor/ make-dir vendor
		hide=private read private
		ok read private/x
	`)
	judged(t, set(t, Choice{Allow: []string{".husky/**", ".vscode/tasks.json", "**/.env.test", ".git/hooks/pre-commit", "x.txt"}}), `
		ok make-dir .husky
		ok write .husky/pre-commit
		git-tools write a/.husky/pre-commit
		git-tools write .Husky/pre-commit
		ok write .vscode/tasks.json
		editor write .vscode/launch.json
		editor make-dir-moved .vscode
		ok read a/b/.env.test
		env read .env
		ok make .git/hooks/pre-commit
		git-hooks make .git/hooks/pre-push
	`)
	if s := set(t, Choice{}); !s.Hides() {
		t.Error("the built-in set hides nothing")
	}
	if s := set(t, Choice{None: true, Refuse: []string{"x"}}); s.Hides() {
		t.Error("a set without rules for reading hides")
	}
	if s := set(t, Choice{None: true, Hide: []string{"x"}}); !s.Hides() {
		t.Error("what is hidden is not hidden")
	}
}

func TestPatternsThatAreNotValid(t *testing.T) {
	for _, text := range []string{"", "/x", "../x", "a//b", "./x", "a**", "[x", `x\`, "a\x00", "\xff", strings.Repeat("a/", 70)} {
		for _, c := range []Choice{{Allow: []string{text}}, {Refuse: []string{text}}, {Hide: []string{text}}} {
			if _, err := New(c); err == nil || !strings.Contains(err.Error(), "the pattern \"") {
				t.Errorf("%q: %v", text, err)
			}
		}
	}
}

func TestWantsContent(t *testing.T) {
	s := set(t, Choice{Allow: []string{"a.pem"}})
	for path, want := range map[string]bool{
		".git/config": true, ".GIT/Config": true, "x/.git/modules/a/b/config": true, ".git/worktrees/w/config.worktree": true,
		"x.git/config": true, "config": false, ".git/config.lock": false, ".git/refs/heads/config": false, ".git": false,
		"b.pem": true, "a.pem": false, "x.go": false, ".": false, "": false, "sub/.git/refs/heads/.git/config": true,
	} {
		if got := s.WantsContent(path); got != want {
			t.Errorf("%q: %v", path, got)
		}
	}
}

// Each open, create and rename in a share waits for it.
func BenchmarkJudge(b *testing.B) {
	s, err := New(Choice{})
	if err != nil {
		b.Fatal(err)
	}
	for _, path := range []string{"main.go", "node_modules/.pnpm/a@1.0.0/node_modules/a/dist/esm/index.js", ".git/objects/ab/tmp_obj_x", "größe/ä.txt"} {
		b.Run(path, func(b *testing.B) {
			for b.Loop() {
				s.Judge(Access{Operation: Make, Path: path})
			}
		})
	}
}

// TestSharesThatAreProtectedThemselves is for shares of which the directory's own name means something.
func TestSharesThatAreProtectedThemselves(t *testing.T) {
	for _, tt := range []struct {
		above   string
		access  Access
		refused string
	}{
		{".git", Access{Operation: Make, Path: "hooks/pre-commit"}, gitHooks},
		{".git", Access{Operation: Write, Path: "config"}, gitConfig},
		{".git", Access{Operation: Make, Path: "commondir"}, gitDir},
		{".git", Access{Operation: Make, Path: "refs/heads/hooks/x"}, ""},
		{".git", Access{Operation: Make, Path: "HEAD"}, ""},
		{".git/worktrees/x", Access{Operation: Make, Path: "config.worktree"}, gitConfig},
		{"project.git", Access{Operation: Write, Path: "hooks/post-receive"}, gitHooks},
		{".husky", Access{Operation: Make, Path: "pre-commit"}, "git-tools"},
		{".vscode", Access{Operation: Make, Path: "tasks.json", Moved: true}, "editor"},
		{"project", Access{Operation: Make, Path: "hooks/pre-commit"}, ""},
		// It is shared by its name to be read.
		{".aws", Access{Operation: Read, Path: "credentials"}, ""},
	} {
		set, err := New(Choice{Above: tt.above})
		if err != nil {
			t.Fatal(err)
		}
		if v := set.Judge(tt.access); v.Rule != tt.refused {
			t.Errorf("in %s, %+v is refused by %q, want %q", tt.above, tt.access, v.Rule, tt.refused)
		}
	}
	set, err := New(Choice{Above: ".husky", Allow: []string{"pre-commit"}, Refuse: []string{"pre-push"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, refused := range map[string]string{"pre-commit": "", "pre-push": "git-tools", "x/pre-push": "git-tools"} {
		if v := set.Judge(Access{Operation: Make, Path: name}); v.Rule != refused {
			t.Errorf("%s is refused by %q, want %q", name, v.Rule, refused)
		}
	}
	if _, err := New(Choice{Above: "../x"}); err == nil {
		t.Error("any path is one above a share")
	}
}
