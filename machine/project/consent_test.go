package project

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// request writes a project's file, and returns what it asks for.
func request(t *testing.T, text string) Request {
	t.Helper()
	files, base, err := load(t, text, `allow = "users.example"`)
	if err != nil {
		t.Fatal(err)
	}
	if own := files[1].Request(); len(own.Asks) > 0 {
		t.Errorf("the user's own file asks for %v", own.Asks)
	}
	r := files[0].Request()
	if r.Directory != filepath.Join(base, "project") || r.File() != files[0].Source.Name {
		t.Errorf("the request is of %s, %s", r.Directory, r.File())
	}
	return r
}

func TestARequestIsWhatAFileOpensHoweverItIsWritten(t *testing.T) {
	want := []Ask{{"allow", "a.example"}, {"allow", "b.example:22"}, {"allow-host-port", "5432:db"}, {"publish", "8080:80"}, {"publish", "auto"}, {"secret", "KEY=command:pass show key@a.example"}}
	for _, text := range []string{
		"allow = [\"a.example\", \"b.example:22\"]\nallow-host-port = \"5432:db\"\npublish = [\"8080:80\", \"auto\"]\nsecret = \"KEY=command:pass show key@a.example\"",
		"# of all of us\nmemory = 512\npublish = ['auto', '8080:80', 'auto']\nnet = \"none\"\nallow-host-port = [\"5432:\\u0064b\"]\nallow = [\"b.example:22\", \"a.example\"]\nsecret = [\"KEY=command:pass show key@a.example\"]\ndeny = \"c.example\"",
	} {
		if got := request(t, text); fmt.Sprint(got.Asks) != fmt.Sprint(want) {
			t.Errorf("%s\nasks for %v, want %v", text, got.Asks, want)
		}
	}
	if got := request(t, "net = \"allowlist\"\ndeny = \"a.example\"\nshare = \".\""); len(got.Asks) > 0 {
		t.Errorf("what opens nothing asks for %v", got.Asks)
	}
}

func TestAFileAsksForNothingThatOneCannotJudge(t *testing.T) {
	var many []string
	for i := range maxAsks + 1 {
		many = append(many, fmt.Sprintf("%q", fmt.Sprint("h", i, ".example")))
	}
	for text, want := range map[string]string{
		`allow = "git:origin"`:                           "may lead elsewhere tomorrow: write the repository's address",
		`allow = "a..b"`:                                 "sandbox.toml:1:1: allow: the rule \"a..b\" is wrong",
		`allow = "a.example\n   --allow b.example"`:      "sandbox.toml:1:1: allow: the rule ",
		`allow-host-port = "5432:host.example.com"`:      "may be somebody else's name",
		`publish = "80"`:                                 "the port forward \"80\" is not valid",
		`allow = "` + strings.Repeat("x", 301) + `"`:     "more than 300 characters is more than one can judge",
		`allow = [` + strings.Join(many, ", ") + `]`:     "asks for 129 things, and more than 128 are more than one can judge",
		"allow = \"https://a.example/\\u202e/**\"":       "sandbox.toml:1:1: allow: the rule ",
		"allow-host-port = [\"5432\", \"5433:\\u001b\"]": "sandbox.toml:1:1: allow-host-port: ",
		`secret = "KEY=file:key@api.example"`:            "sandbox.toml:1:1: secret: ",
		`secret = "KEY=sk-0123@api.example"`:             "sandbox.toml:1:1: secret: ",
		`secret = "KEY"`:                                 "sandbox.toml:1:1: secret: ",
	} {
		if _, _, err := load(t, text, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v\nwant %s", text, err, want)
		}
	}
	if _, _, err := load(t, `secret = "KEY=sk-0123@api.example"`, ""); err == nil || strings.Contains(err.Error(), "sk-0123") {
		t.Errorf("a value in a file: %v", err)
	}
	if _, _, err := load(t, "", "allow = \"git:origin\"\npublish = \"auto\""); err != nil {
		t.Errorf("the user's own file: %v", err)
	}
}

func consents(t *testing.T) Consents {
	t.Helper()
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return Consents{Dir: filepath.Join(base, "state", "consents")}
}

func TestConsentIsToWhatWasAskedForAndToNothingElse(t *testing.T) {
	c := consents(t)
	r := request(t, "allow = [\"a.example\", \"b.example\"]")
	if c.Has(r) {
		t.Error("there is consent before it was given")
	}
	if err := c.Give(r); err != nil {
		t.Fatal(err)
	}
	if !c.Has(r) {
		t.Error("consent was not remembered")
	}
	for name, asks := range map[string][]Ask{
		"more":           append(r.Asks[:2:2], Ask{"publish", "80:80"}),
		"less":           r.Asks[:1],
		"another value":  {r.Asks[0], {"allow", "b.example:*"}},
		"another option": {r.Asks[0], {"publish", "b.example"}},
		"nothing":        nil,
	} {
		if c.Has(Request{r.Directory, asks}) {
			t.Errorf("consent counts for %s: %v", name, asks)
		}
	}
	for _, dir := range []string{r.Directory + "/sub", filepath.Dir(r.Directory), r.Directory + "/", ""} {
		if c.Has(Request{dir, r.Asks}) {
			t.Errorf("consent counts in the directory %q", dir)
		}
	}
	// A later consent takes the place of an earlier one.
	narrow := Request{r.Directory, r.Asks[:1]}
	if err := c.Give(narrow); err != nil {
		t.Fatal(err)
	}
	if c.Has(r) || !c.Has(narrow) {
		t.Error("an earlier consent counts beside a later one")
	}
	if all, err := c.List(); err != nil || len(all) != 1 || fmt.Sprint(all[0]) != fmt.Sprint(narrow) {
		t.Errorf("listed: %v, %v", all, err)
	}
	if err := c.Withdraw(r.Directory); err != nil || c.Has(narrow) {
		t.Errorf("consent was not taken back: %v", err)
	}
	if err := c.Withdraw(r.Directory); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("taken back twice: %v", err)
	}
}

func TestConsentsAreTheUsersAlone(t *testing.T) {
	c := consents(t)
	r := Request{"/srv/project", []Ask{{"allow", "a.example"}}}
	if err := c.Give(r); err != nil {
		t.Fatal(err)
	}
	path := c.path(r.Directory)
	for at, want := range map[string]os.FileMode{path: 0o600, c.Dir: 0o700, filepath.Dir(c.Dir): 0o700} {
		if info, err := os.Stat(at); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has the mode %v, %v", at, info.Mode(), err)
		}
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	spoil := map[string]func() error{
		"is cut off":                                 func() error { return os.WriteFile(path, good[:len(good)/2], 0o600) },
		"says more than is known":                    func() error { return os.WriteFile(path, append([]byte(`{"all": true, `), good[1:]...), 0o600) },
		"is of another project":                      func() error { return os.Rename(path, c.path("/srv/other")) },
		"can be written by everybody":                func() error { return os.Chmod(path, 0o666) },
		"is in a directory that everybody can write": func() error { return os.Chmod(c.Dir, 0o777) },
	}
	if os.Geteuid() == 0 {
		spoil["is another user's"] = func() error { return os.Chown(path, 54321, 54321) }
	}
	for name, spoil := range spoil {
		if err := errors.Join(c.Give(r), spoil()); err != nil {
			t.Fatal(err)
		}
		if c.Has(r) || c.Has(Request{"/srv/other", r.Asks}) {
			t.Errorf("a consent counts that %s", name)
		}
		if err := errors.Join(os.Chmod(c.Dir, 0o700), os.RemoveAll(c.Dir)); err != nil {
			t.Fatal(err)
		}
	}
}
