package virtiofs

import (
	"os/exec"
	"slices"
	"testing"

	"github.com/sourcery-zone/sandbox/virtiofs/rules"
)

func TestHooksAreFoundWhereTheyLead(t *testing.T) {
	for name, tt := range map[string]struct {
		script string
		want   []string
	}{
		"no repository":      {`true`, nil},
		"ordinary hooks":     {`mkdir -p .git/hooks; echo x >.git/hooks/pre-commit; printf '[core]\n\tbare = false\n' >.git/config`, nil},
		"settings":           {`mkdir .git; printf '[core]\n\thooksPath = tools/[hooks]\n' >.git/config`, []string{"tools/[hooks]"}},
		"absolute path":      {`mkdir .git; printf '[core]\n\thooksPath = "%s"\n' "$PWD/tools" >.git/config`, []string{"tools"}},
		"outside":            {`mkdir .git; printf '[core]\n\thooksPath = ../tools\n' >.git/config; ln -s /etc .git/hooks`, nil},
		"the directory":      {`mkdir .git tools; ln -s ../tools .git/hooks; ln -s ../src/check tools/pre-push`, []string{"tools", "src/check"}},
		"a hook":             {`mkdir -p .git/hooks; ln -s ../../check.sh .git/hooks/pre-commit`, []string{"check.sh"}},
		"settings that link": {`mkdir .git h; ln -s ../check.sh h/pre-commit; printf '[core]\n\thooksPath = h\n' >.git/config`, []string{"h", "check.sh"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := mkdir(t, t.TempDir(), "src")
			cmd := exec.Command("sh", "-ec", tt.script)
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			got, err := hooks(openDir(t, dir))
			if err != nil || !slices.Equal(got, tt.want) {
				t.Fatalf("found %q, %v; want %q", got, err, tt.want)
			}
			set, err := rules.New(rules.Choice{Hooks: got})
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range got {
				for _, path := range []string{p, p + "/pre-commit"} {
					if v := set.Judge(rules.Access{Operation: rules.Write, Path: path}); !v.Refused || v.Rule != "git-hooks" {
						t.Errorf("%s: %+v", path, v)
					}
				}
			}
		})
	}
}

func TestWhatIsAboveAShareForItsRules(t *testing.T) {
	for dir, want := range map[string]string{
		"/": "", "/src/app": "app", "/src/app/.git": ".git", "/src/app/.git/worktrees/x": ".git/worktrees/x",
		"/src/app.git/main": "main", "/src/app.git": "app.git", "/src/.claude/worktrees/x": "x",
	} {
		if got := aboveRules(dir); got != want {
			t.Errorf("of %s, rules look at %q, want %q", dir, got, want)
		}
	}
}
