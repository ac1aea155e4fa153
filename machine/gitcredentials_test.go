package machine

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

func TestGitCredentialsAreForTheRemotesOfShares(t *testing.T) {
	for config, want := range map[string]string{
		origin("https://github.com/o/r.git"):                                       "[https://github.com/o/r.git]",
		origin("https://me:secret@git.example:8443/a+b/%7Ec/r/"):                   "[https://me@git.example:8443/a+b/%7Ec/r]",
		origin("https://a.example/o/r") + "\tpushurl = https://a.example/o/r.git":  "[https://a.example/o/r]",
		origin("https://a.example/o/r") + "\tpushurl = https://b.example:443/o/s,": "[https://a.example/o/r https://b.example:443/o/s,]",
	} {
		got, err := resolveCredentials([]string{"origin"}, []virtiofs.Share{{Source: t.TempDir()}, {Source: repository(t, config)}, {Source: repository(t, config)}})
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s\n%q, %v, want %s", config, got, err, want)
		}
	}
	for config, want := range map[string]string{
		"":                                 "there is none",
		origin("git@github.com:o/r.git"):   `"git@github.com:o/r.git", and git's credentials are used by https only`,
		origin("ssh://git@github.com/o/r"): "by https only",
		origin("http://me:hidden@git.example/o/r"): "by https only",
		origin("../r"): "by https only",
		origin("https://me:hidden@a.example/%zz"):              "not an address that can be read",
		origin("https://me:hidden@a.example"):                  "names no repository",
		origin("https://a.example/.git"):                       "names no repository",
		origin("https://a.example/o/.git"):                     "names no repository",
		origin("https://localhost/o/r"):                        "whose name has a dot in it",
		origin("https://192.0.2.1/o/r"):                        "is an address",
		origin("https://a.example/o/../r"):                     "leads up",
		origin("https://a.example/o%2fr"):                      "read differently",
		origin("https://a.example/o%0ahost=b.example/r"):       "control character",
		origin("https://me%0ahost=b.example:x@a.example/o/r"):  "whose user is no name",
		origin("https://a.example/o/r?x"):                      "",
		origin("https://a.example@b.example@c.example/o/r"):    "",
		origin("https://a.example,b.example,header=X-Key/o/r"): "",
	} {
		got, err := resolveCredentials([]string{"origin"}, []virtiofs.Share{{Source: repository(t, config)}})
		switch {
		case want == "" && err == nil: // odd, and for one host all the same
			if r, err := parseRepository(got[0], 1); err != nil || len(r.secret.Hosts) != 1 || r.secret.Headers[0] != "Authorization" {
				t.Errorf("%s\n%q is %v, %v", config, got, r.secret, err)
			}
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)) || err != nil && strings.Contains(err.Error(), "hidden"):
			t.Errorf("%s\n%q, %v, want an error with %q", config, got, err, want)
		}
	}
}

// gitHome is a home whose git has a helper that writes down what it is asked in a file, and where, and prints an answer.
func gitHome(t *testing.T, answer string) (asked string) {
	t.Helper()
	home := t.TempDir()
	asked, helper := filepath.Join(home, "asked"), filepath.Join(home, "helper")
	for path, text := range map[string]string{
		helper:                            fmt.Sprintf("#!/bin/sh\n[ \"$1\" = get ] || exit 0\n{ pwd; cat; } >>%s\nprintf '%s'\n", asked, answer),
		filepath.Join(home, ".gitconfig"): "[credential \"https://git.example\"]\n\thelper = " + helper + "\n\tuseHttpPath = true\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	t.Setenv("GIT_TERMINAL_PROMPT", "0")
	t.Setenv("GIT_ASKPASS", "")
	t.Setenv("SSH_ASKPASS", "")
	return asked
}

func gitConfig(t *testing.T, addresses ...string) Config {
	t.Helper()
	c := testConfig("a")
	c.Network, c.GitCredentials = network.ModePublic, addresses
	return c
}

func TestGitIsAskedForCredentials(t *testing.T) {
	asked := gitHome(t, `username=me@work\npassword=gho_aVeryGoodToken0123\n`)
	// What a guest may have written where the user is.
	dir := repository(t, "[credential]\n\thelper = \"!echo username=evil; echo password=evil; :\"\n")
	t.Chdir(dir)
	t.Setenv("GIT_DIR", filepath.Join(dir, ".git"))
	t.Setenv("GIT_COMMON_DIR", filepath.Join(dir, ".git"))
	h := testHost(t)
	c := gitConfig(t, "https://you@git.example/o/r.git")
	secrets, err := h.Secrets(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	got := secrets["GIT_PASSWORD_1"]
	if got.User != "me@work" || got.Value.Reveal() != "gho_aVeryGoodToken0123" || strings.Contains(fmt.Sprintf("%v %+v %#v", secrets, got, got), "gho_") {
		t.Errorf("%+v", got)
	}
	text, err := os.ReadFile(asked)
	if err != nil || string(text) != "/\nprotocol=https\nhost=git.example\npath=o/r.git\nusername=you\n" {
		t.Errorf("the helper was asked %q, %v", text, err)
	}
}

func TestWithoutCredentialsOfGitNothingIsMade(t *testing.T) {
	h := testHost(t)
	for _, c := range []struct{ address, answer, want string }{
		{"https://other.example/o/r.git", "", "git has no credentials for https://other.example/o/r: exit status 128: store them with your credential helper"},
		{"https://git.example/o/r", `username=hidden1\npassword=\n`, "git has no"},
		{"https://git.example/o/r", `username=hidden1\npassword=x-oauth-basic\n`, "store the token as the password"},
		{"https://git.example/o/r", `username=a:b\npassword=hidden1\n`, "store the token as the password"},
		{"https://git.example/o/r", `username=a\npassword=hidden1 \n`, "cannot be a secret"},
	} {
		gitHome(t, c.answer)
		secrets, err := h.Secrets(t.Context(), gitConfig(t, c.address))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hidden1") || !secrets["GIT_PASSWORD_1"].Value.IsZero() {
			t.Errorf("%s %s: %v, want %q", c.address, c.answer, err, c.want)
		}
	}
}

// TestGitOfTheGuestFindsItsCredentials has git say which header it sends where, with the variables that a guest gets.
func TestGitOfTheGuestFindsItsCredentials(t *testing.T) {
	gitHome(t, `username=me\npassword=s3cret-of-me\n`)
	h := testHost(t)
	s, err := h.Create(gitConfig(t, "https://git.example/a+b/r.git", "https://git.example:8443/o/%7Es"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Config()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GIT_ASKPASS", filepath.Join(os.Getenv("HOME"), "askpass"))
	if err := os.WriteFile(os.Getenv("GIT_ASKPASS"), []byte("#!/bin/sh\necho s3cret-of-me\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	secrets, err := s.Secrets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	names, files, err := s.openSecrets(c, secrets)
	closeAll(files)
	if err != nil || !slices.Equal(names, []string{"GIT_PASSWORD_1", "GIT_PASSWORD_2"}) {
		t.Fatal(names, err)
	}
	if c, err = s.Config(); err != nil || c.GitUsers["GIT_PASSWORD_1"] != "me" {
		t.Fatal(c.GitUsers, err)
	}
	variables, err := c.Variables()
	if err != nil || strings.Contains(strings.Join(variables, "\n"), "s3cret-of-me") {
		t.Fatal(variables, err)
	}
	header := func(n int) string {
		name := fmt.Sprint("GIT_PASSWORD_", n)
		if !slices.Contains(variables, name+"="+c.Placeholders[name]) {
			t.Errorf("%s is not among %q", name, variables)
		}
		return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(c.GitUsers[name]+":"+c.Placeholders[name]))
	}
	for address, want := range map[string]string{
		"https://git.example/a+b/r/info/refs":                      header(1),
		"https://git.example:443/a+b/r.git/info/lfs/objects/batch": header(1),
		"https://you@git.example/a+b/r.git":                        header(1),
		"https://git.example:8443/o/~s.git/git-receive-pack":       header(2),
		"https://git.example/a+b/r2":                               "",
		"https://git.example/o/~s":                                 "",
		"http://git.example/a+b/r":                                 "",
		"https://x.git.example/a+b/r":                              "",
	} {
		cmd := exec.Command("git", "config", "--get-urlmatch", "http.extraHeader", address)
		cmd.Dir, cmd.Env = "/", append(variables, "PATH="+os.Getenv("PATH"), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_DIR=/dev/null")
		out, err := cmd.Output()
		if got := strings.TrimSuffix(string(out), "\n"); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v, want %q", address, got, err, want)
		}
	}
}

func TestGitCredentialsOpenNothing(t *testing.T) {
	c := gitConfig(t, "https://git.example/o/r.git")
	if err := c.validateSecrets(); err != nil || !c.HasSecrets() {
		t.Error(err)
	}
	c.Network = network.ModeAllowlist
	if got := fmt.Sprint(c.ClosedSecrets()); got != "[{GIT_PASSWORD_1 git:https://git.example/o/r}]" {
		t.Error(got)
	}
	c.Allow = []string{"git:https://git.example/o/r.git"}
	if got := c.ClosedSecrets(); len(got) != 0 {
		t.Error(got)
	}
	c.Network = network.ModeUser
	if err := c.validateSecrets(); err == nil {
		t.Error("the network puts no secrets into requests")
	}
	c.Network, c.Secrets = network.ModePublic, []string{"GIT_PASSWORD_1@a.example"}
	if err := c.validateSecrets(); err == nil || !strings.Contains(err.Error(), "GIT_PASSWORD_1") {
		t.Errorf("two secrets of one name: %v", err)
	}
}
