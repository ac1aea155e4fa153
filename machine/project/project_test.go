package project

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/internal/trust"
)

// load writes the files, and reads them as they count in a directory of the project.
func load(t *testing.T, project, user string) ([]File, string, error) {
	t.Helper()
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(base, "project", "src", "deep")
	if err := os.MkdirAll(below, 0o755); err != nil {
		t.Fatal(err)
	}
	userFile := filepath.Join(base, "config.toml")
	for path, text := range map[string]string{filepath.Join(base, "project", FileName): project, userFile: user} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files, err := Load(trust.Caller(os.Getenv), below, userFile, func(err error) { t.Error(err) })
	errs := []error{err}
	for _, file := range files {
		for _, s := range file.Settings {
			errs = append(errs, s.Err)
		}
	}
	return files, base, errors.Join(errs...)
}

func TestFilesAreReadAsFlagsTakeThem(t *testing.T) {
	files, base, err := load(t, `# of the project
memory = "4G"
cpus = 3
share = [".", "src:code:ro,refuse=docs/", "sandbox.toml:file"]
`, `
disk = 20480
share = ["one:two:allow=.husky/**", "config.toml:file:ro"]
publish = ["8080:80"]
`)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, file := range files {
		for _, s := range file.Settings {
			rel, err := filepath.Rel(base, file.Source.Name)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprintf("%s:%d %s=%s", rel, s.line, s.Key, strings.ReplaceAll(strings.Join(s.Values, " "), base, "BASE")))
		}
	}
	want := []string{
		"project/sandbox.toml:2 memory=4G", "project/sandbox.toml:3 cpus=3", "project/sandbox.toml:4 share=BASE/project:project BASE/project/src:code:ro,refuse=docs/ BASE/project/sandbox.toml:file:rules=safe",
		"config.toml:2 disk=20480", "config.toml:3 share=BASE/one:two:allow=.husky/** BASE/config.toml:file:ro", "config.toml:4 publish=8080:80",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestRulesOfTheUsersFileHaveTheirPlace(t *testing.T) {
	for text, want := range map[string]string{
		"allow = [\"git:origin\", \"a.example\"]\ndeny = \"b.example\"\npublish = [\"auto\", \"80:80\"]": "",
		"net = \"ask\"\nallow = \"npm\"": "config.toml:2:1: allow: the rule \"npm\" is wrong at character 1",
		"allow-host-port = \"db:5432\"":  "config.toml:1:1: allow-host-port: the host's port \"db:5432\" cannot be opened",
		"publish = \"80\"":               "config.toml:1:1: publish: the port forward \"80\" is not valid",
		"secret = [\"KEY\"]":             "config.toml:1:1: secret: ",
	} {
		_, _, err := load(t, "", text)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func TestMistakesAreShownWithTheirPlace(t *testing.T) {
	for text, want := range map[string]string{
		"memory = \"4G\"\nmemoy = 1\n":                       "sandbox.toml:2:1: memoy: there is no such setting: is memory meant?",
		"cpu = 2":                                            "sandbox.toml:1:1: cpu: there is no such setting: is cpus meant?",
		"colour = 2":                                         "sandbox.toml:1:1: colour: there is no such setting: there are image, flake, memory, cpus, disk, cache, share, publish, net, allow, deny, allow-host-port, secret, agent, agent-home, timeout, workdir",
		"ssh-port = 2222":                                    "sandbox.toml:1:1: ssh-port: a project's file cannot set it: only the user's own can",
		"# a comment\n\n  cpus = \"4\"":                      "sandbox.toml:3:3: cpus: the value must be a whole number without quotes",
		"memory = \"lots\"":                                  "sandbox.toml:1:1: memory: \"lots\" is not a value for it: it must be a size such as 512M or 4G",
		"timeout = \"soon\"":                                 "sandbox.toml:1:1: timeout: \"soon\" is not a value for it: it must be a duration such as 90s or 5m",
		"cpus = -1":                                          "sandbox.toml:1:1: cpus: the value is -1, but must not be negative",
		"memory = 1.5":                                       "sandbox.toml:1:1: memory: the value must be a whole number, or text such as \"4G\"",
		"image = [\"a\", \"b\"]":                             "sandbox.toml:1:1: image: the value must be text in quotes",
		"share = [\"a\", 2]":                                 "sandbox.toml:1:1: share: the value must be text in quotes, or a list",
		"[memory]\nsize = 4\nunit = \"G\"":                   "sandbox.toml:1:2: memory: the value must be a whole number, or text",
		"cpus = 2\ncpus = 3":                                 "sandbox.toml:2:1: ",
		"cpus = ":                                            "sandbox.toml:1:",
		"share = \"..\"":                                     "sandbox.toml:1:1: share: BASE lies outside the project BASE/project",
		"share = \"dir:there:rx\"":                           "\"rx\" is not an option",
		"\nshare = [\".\", \"dir:rules=none\"]":              "sandbox.toml:2:1: share: \"dir:rules=none\" takes rules away that keep this machine safe: a project file may only add some, by refuse= and hide= [set-yourself share]",
		"share = \"sandbox.toml:rules=none\"":                "takes rules away",
		"share = \".:ro,allow=.husky/**\"":                   "sandbox.toml:1:1: share: \".:ro,allow=.husky/**\" takes rules away",
		"share = \".:refuse=/x\"":                            "the pattern \"/x\" is not valid",
		"flake = \"..#image\"":                               "sandbox.toml:1:1: flake: ",
		"image = \"./result\"":                               "sandbox.toml:1:1: image: \"./result\" is a directory [set-by-flag image]",
		"image = \"..\"":                                     "sandbox.toml:1:1: image: \"..\" is a directory [set-by-flag image]",
		"image = \"a\"\nflake = \".#x\"\n":                   "sandbox.toml:1:1: image: image and flake both name an image",
		"net = \"none\"\ndeny = \"https://a.example/**\"":    "sandbox.toml:2:1: deny: the rule \"https://a.example/**\" is wrong at character 1: single requests can be opened, and only whole hosts be closed",
		"allow = [\"a.example\", \"localhost:3000\"]":        "sandbox.toml:1:1: allow: the rule \"localhost:3000\" names this machine itself, of which no rule opens anything [set allow-host-port PORT]",
		"memoy = 1\ncpus = \"x\"":                            "sandbox.toml:2:1: cpus: ", // each of several
		"workdir = \"" + strings.Repeat("x", maxSize) + "\"": "is larger than 1 MiB",
	} {
		_, base, err := load(t, text, "")
		if err == nil || !strings.Contains(strings.ReplaceAll(fmt.Sprint(err, remedy.Of(err)), base, "BASE"), want) {
			t.Errorf("%.60q: %v\nwant %s", text, err, want)
		}
	}
}
