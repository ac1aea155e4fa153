package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/machine/project"
)

// settled is what the options are in a project whose file and whose user's file have
// these texts.
type settled struct {
	c       *cli.Context
	sources sources
	err     error
}

func (s settled) rules() string {
	return fmt.Sprint(s.c.StringSlice("allow"), s.c.StringSlice("deny"), s.c.StringSlice("publish"))
}

// settle applies settings files as run does. The project's is in dir/sandbox.toml.
func settle(t *testing.T, dir, user string, consent consenter, args ...string) (s settled) {
	t.Helper()
	own := filepath.Join(t.TempDir(), "config.toml")
	write(t, own, user)
	app := &cli.App{
		Name: "sandbox", DisableSliceFlagSeparator: true,
		Commands: []*cli.Command{{Name: "run", Flags: createFlags(), Action: func(c *cli.Context) error {
			s.c = c
			s.sources, _, s.err = applySettings(c, dir, own, consent, func(err error) { t.Error(err) })
			return nil
		}}},
	}
	if err := app.Run(append([]string{"sandbox", "run"}, args...)); err != nil {
		t.Fatal(err)
	}
	return s
}

func projectDir(t *testing.T, text string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, project.FileName), text)
	return dir
}

func noConsent(project.Request) (bool, error) { return false, errors.New("no consent") }

// TestAProjectsNetworkIsNoWiderThanItsUsers has the mode that results, or what the error
// says.
func TestAProjectsNetworkIsNoWiderThanItsUsers(t *testing.T) {
	for _, tt := range []struct{ project, user, args, want string }{
		{"", "", "", "public default"},
		{"allowlist", "", "", "allowlist project"},
		{"ask", "", "", "ask project"},
		{"none", "", "", "none project"},
		{"public", "", "", "public project"},
		{"user", "", "", `"user" opens more than "public"`},
		{"user", "user", "", "user project"},
		{"none", "user", "", "none project"},
		{"public", "allowlist", "", `"public" opens more than "allowlist"`},
		{"ask", "allowlist", "", `"ask" opens more than "allowlist"`},
		{"allowlist", "ask", "", "allowlist project"},
		{"allowlist", "none", "", `"allowlist" opens more than "none"`},
		{"", "none", "", "none user"},
		{"none", "bridged", "", `"bridged" is not a value for it`},
		{"bridged", "", "", `"bridged" is not a value for it`},
		{"user", "", "--net=none", "none flag"}, // what the user has said counts, wider or not
		{"none", "none", "--net=user", "user flag"},
		{"bridged", "bridged", "--net=public", "public flag"},
		{"public", "", "--git-push-only", "public default"}, // which configure makes an allowlist
		{"none", "", "--git-push-only", "none project"},
		{"public", "public", "--git-push-only", "public project"},
	} {
		key := func(value string) string {
			if value == "" {
				return ""
			}
			return fmt.Sprintf("net = %q", value)
		}
		dir := projectDir(t, key(tt.project))
		s := settle(t, dir, key(tt.user), noConsent, strings.Fields(tt.args)...)
		layer, ok := map[project.Layer]string{project.ProjectFile: "project", project.UserFile: "user", project.Flag: "flag"}[s.sources["net"].Layer]
		if !ok {
			layer = "default"
		}
		got := s.c.String("net") + " " + layer
		if s.err != nil {
			got = sentences(s.err)
		}
		if s.err == nil && got != tt.want || s.err != nil && !strings.Contains(got, tt.want) {
			t.Errorf("%+v: %s", tt, got)
		}
		if strings.Contains(tt.want, "opens more") && (!strings.Contains(got, dir+"/sandbox.toml:1:1: net: ") || !strings.HasSuffix(got, "; give --net yourself if you want this")) {
			t.Errorf("%+v: %s has no place, or no remedy", tt, got)
		}
	}
}

// TestRulesOfAllPlacesAddUp is for those of the project's file that narrow, and for those
// to which the user has consented. No file takes away what another one denies.
func TestRulesOfAllPlacesAddUp(t *testing.T) {
	const user = "net = \"allowlist\"\nallow = \"users.example\"\ndeny = \"bad.example\"\npublish = \"80:80\""
	yes := func(project.Request) (bool, error) { return true, nil }
	no := func(project.Request) (bool, error) { return false, nil }
	for _, tt := range []struct {
		project, user string
		consent       consenter
		args          string
		want, source  string
	}{
		{"deny = []", user, noConsent, "", "[users.example] [bad.example] [80:80]", "config.toml"},
		{"deny = \"worse.example\"", user, noConsent, "--deny=x.example", "[users.example] [x.example worse.example bad.example] [80:80]", "config.toml"},
		{"allow = \"its.example\"", user, yes, "", "[its.example users.example] [bad.example] [80:80]", "config.toml"},
		{"allow = \"its.example\"", user, no, "", "[users.example] [bad.example] [80:80]", "config.toml"},
		{"allow = \"its.example\"", user, noConsent, "--allow=mine.example", "[mine.example] [bad.example] [80:80]", "flag"},
		{"allow = \"its.example\"", user, noConsent, "--net=user", "[] [bad.example] [80:80]", ""},
		{"allow = \"its.example\"\npublish = \"1:1\"\ndeny = \"x.example\"", user, noConsent, "--net=none", "[] [] []", ""},
		// The public network is open to names without rules.
		{"allow = [\"its.example\", \"preset:npm\"]", "", noConsent, "", "[] [] []", ""},
		{"allow = [\"its.example\", \"10.1.0.0/16:5432\"]", "", yes, "", "[10.1.0.0/16:5432] [] []", "DIR/sandbox.toml"},
		{"net = \"allowlist\"\nallow = \"its.example\"", "", yes, "", "[its.example] [] []", "DIR/sandbox.toml"},
		{"publish = [\"1:1\", \"auto\"]", user, yes, "", "[users.example] [bad.example] [1:1 auto 80:80]", "config.toml"},
		{"publish = \"1:1\"", user, noConsent, "-p=2:2", "[users.example] [bad.example] [2:2]", "config.toml"},
	} {
		dir := projectDir(t, tt.project)
		s := settle(t, dir, tt.user, tt.consent, strings.Fields(tt.args)...)
		if s.err != nil || s.rules() != tt.want {
			t.Errorf("%q %s: %s, %v\nwant %s", tt.project, tt.args, s.rules(), s.err, tt.want)
		}
		var source string
		if found, ok := s.sources["allow"]; ok {
			source = strings.ReplaceAll(found.String(), dir, "DIR")
		}
		if strings.Contains(tt.want, "its.example users.example") && !strings.HasPrefix(source, "DIR/sandbox.toml, ") {
			t.Errorf("%q: what is allowed is from %q, and the project is missing", tt.project, source)
		}
		if !strings.HasSuffix(source, tt.source) || tt.source == "" && source != "" {
			t.Errorf("%q %s: what is allowed is from %q, want %q", tt.project, tt.args, source, tt.source)
		}
	}
	for _, project := range []string{"allow = \"its.example\"\nnet = \"allowlist\"", "publish = \"1:1\"", "allow-host-port = 5432\nmemory = 1", "allow = \"10.0.0.1:22\""} {
		if s := settle(t, projectDir(t, project), "", noConsent); s.err == nil {
			t.Errorf("%q counts without consent", project)
		}
	}
}

// TestWhatIsConsentedToIsWhatIsUsed has a guest that shares the project, and writes its
// file in each moment that it could want.
func TestWhatIsConsentedToIsWhatIsUsed(t *testing.T) {
	const harmless, evil = "net = \"allowlist\"\nallow = \"good.example\"", "net = \"allowlist\"\nallow = [\"good.example\", \"evil.example\"]"
	dir := projectDir(t, harmless)
	file := filepath.Join(dir, project.FileName)
	consents := project.Consents{Dir: filepath.Join(t.TempDir(), "consents")}
	known := func(r project.Request) (bool, error) {
		if consents.Has(r) {
			return true, nil
		}
		return false, needsConsent(r)
	}
	// It writes while the user reads the question: what was shown is what is remembered and used.
	var asked bytes.Buffer
	s := settle(t, dir, "", func(r project.Request) (bool, error) {
		write(t, file, evil)
		return askConsent(strings.NewReader("y\n"), &asked, consents, r)
	})
	if s.err != nil || s.rules() != "[good.example] [] []" {
		t.Errorf("used: %s, %v", s.rules(), s.err)
	}
	if want := file + " asks for:\n   --allow good.example\n"; !strings.HasPrefix(asked.String(), want) {
		t.Errorf("shown: %q", asked.String())
	}
	// What it has written takes a consent of its own, and is not used by halves.
	s = settle(t, dir, "", known)
	if s.err == nil || !strings.Contains(s.err.Error(), "only with your consent: --allow evil.example --allow good.example\nsandbox trust "+dir) {
		t.Errorf("a guest's rule: %v", s.err)
	}
	if s.rules() != "[] [] []" {
		t.Errorf("used by halves: %s", s.rules())
	}
	// It writes between the look at what was consented to and the use.
	write(t, file, harmless)
	s = settle(t, dir, "", func(r project.Request) (bool, error) {
		ok, err := known(r)
		write(t, file, evil)
		return ok, err
	})
	if s.err != nil || s.rules() != "[good.example] [] []" {
		t.Errorf("used: %s, %v", s.rules(), s.err)
	}
	// The project takes its consent nowhere: not to a copy, nor to a link to it.
	other := projectDir(t, harmless)
	if s = settle(t, other, "", known); s.err == nil {
		t.Errorf("a copy counts: %s", s.rules())
	}
	write(t, file, harmless)
	if err := errors.Join(os.Remove(filepath.Join(other, project.FileName)), os.Symlink(file, filepath.Join(other, project.FileName))); err != nil {
		t.Fatal(err)
	}
	if s = settle(t, other, "", known); s.err == nil {
		t.Errorf("a link to the file counts: %s", s.rules())
	}
	// By another way to it, the project is the same one.
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if s = settle(t, link, "", known); s.err != nil || s.rules() != "[good.example] [] []" {
		t.Errorf("by a link to the project: %s, %v", s.rules(), s.err)
	}
	// Without a yes, nothing is remembered.
	write(t, file, evil)
	for _, answer := range []string{"", "n\n", "\n", "yes please\n"} {
		s = settle(t, dir, "", func(r project.Request) (bool, error) {
			return askConsent(strings.NewReader(answer), &asked, consents, r)
		})
		if s.err == nil || s.rules() != "[] [] []" {
			t.Errorf("the answer %q: %s", answer, s.rules())
		}
	}
	if s = settle(t, dir, "", known); s.err == nil {
		t.Errorf("remembered: %s", s.rules())
	}
}

// TestNothingIsAskedAboutAFileWithMistakes: a consent would be to a part of it.
func TestNothingIsAskedAboutAFileWithMistakes(t *testing.T) {
	for _, text := range []string{"allow = [\"10.1.0.1:22\", \"a..b\"]", "publish = \"1:1\"\nmemory = \"lots\"", "publish = \"1:1\"\nnet = \"user\"", "publish = \"1:1\"\nmemoy = 1"} {
		s := settle(t, projectDir(t, text), "", func(r project.Request) (bool, error) {
			t.Errorf("%q is asked about: %v", text, r)
			return true, nil
		})
		if s.err == nil || s.rules() != "[] [] []" {
			t.Errorf("%q: %s, %v", text, s.rules(), s.err)
		}
	}
}

func TestWhatAProjectAsksForIsShownAsOneWouldTypeIt(t *testing.T) {
	for value, want := range map[string]string{
		"*.example.com:8443":       "--allow '*.example.com:8443'",
		"a.example":                "--allow a.example",
		"GET https://a.example/**": "--allow 'GET https://a.example/**'",
		"a.example\n   --allow b":  `--allow "a.example\n   --allow b"`,
		"\u0430pi.example":         `--allow "\u0430pi.example"`, // not a Latin a
		"a.example\x1b[2J\u202e":   `--allow "a.example\x1b[2J\u202e"`,
		"":                         "--allow ''",
		"--net=user":               "--allow --net=user",
	} {
		if got := asFlags([]project.Ask{{Option: "allow", Value: value}}); len(got) != 1 || got[0] != want {
			t.Errorf("%q is shown as %q, want %q", value, got, want)
		}
	}
}
