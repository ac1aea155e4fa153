package project

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

func answers(t *testing.T) Answers {
	t.Helper()
	return Answers{filepath.Join(consents(t).Dir, "answers")}
}

func TestAnswersAreForOneProjectUntilTheyAreTakenBack(t *testing.T) {
	a := answers(t)
	if rules, err := a.Rules("/srv/project"); err != nil || rules != nil {
		t.Errorf("before an answer: %q, %v", rules, err)
	}
	for _, rule := range []string{"b.example", "a.example:22", "b.example", "192.0.2.1", "[2001:db8::1]:22"} {
		if err := a.Add("/srv/project", rule); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"b.example", "a.example:22", "192.0.2.1", "[2001:db8::1]:22"}
	if rules, err := a.Rules("/srv/project"); err != nil || !slices.Equal(rules, want) {
		t.Errorf("%q, %v; want %q", rules, err, want)
	}
	for _, other := range []string{"/srv", "/srv/project/", "/srv/project/sub", ""} {
		if rules, err := a.Rules(other); err != nil || rules != nil {
			t.Errorf("%q has %q, %v", other, rules, err)
		}
	}
	if all, err := a.List(); err != nil || len(all) != 1 || all[0].Directory != "/srv/project" || len(all[0].Asks) != len(want) {
		t.Errorf("listed: %v, %v", all, err)
	}
	if err := a.Forget("/srv/project"); err != nil {
		t.Error(err)
	}
	if rules, err := a.Rules("/srv/project"); err != nil || rules != nil {
		t.Errorf("taken back: %q, %v", rules, err)
	}
	if err := a.Forget("/srv/project"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("taken back twice: %v", err)
	}
}

func TestAnswersAtOnceAreAllRemembered(t *testing.T) {
	a := answers(t)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if err := a.Add("/srv/project", fmt.Sprintf("h%d.example", i)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if rules, err := a.Rules("/srv/project"); err != nil || len(rules) != 20 {
		t.Errorf("%q, %v", rules, err)
	}
}

func TestAnAnswerIsARuleThatOneCanOversee(t *testing.T) {
	a := answers(t)
	for _, rule := range []string{"", "a..b", "git:origin", "a.example\nb.example", strings.Repeat("a", 301)} {
		if err := a.Add("/srv/project", rule); err == nil {
			t.Errorf("%.20q is remembered", rule)
		}
	}
	for i := range maxAsks {
		if err := a.Add("/srv/project", fmt.Sprintf("h%d.example", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Add("/srv/project", "more.example"); err == nil || !strings.Contains(err.Error(), "128 rules") {
		t.Errorf("one more: %v", err)
	}
	if err := a.Add("/srv/project", "h0.example"); err != nil {
		t.Errorf("one that is there: %v", err)
	}
}

// TestAnswersAreTheUsersAlone is for files that somebody has written who should not.
func TestAnswersAreTheUsersAlone(t *testing.T) {
	a := answers(t)
	path := a.files().path("/srv/project")
	for name, spoil := range map[string]func() error{
		"can be written by everybody": func() error { return os.Chmod(path, 0o666) },
		"is cut off":                  func() error { return os.Truncate(path, 20) },
		"is of another project": func() error {
			return errors.Join(a.Add("/srv/other", "b.example"), os.Rename(a.files().path("/srv/other"), path))
		},
		"sets something else": func() error {
			return a.files().Give(Request{"/srv/project", []Ask{{"allow", "a.example"}, {"allow-host-port", "22"}}})
		},
	} {
		if err := errors.Join(a.Add("/srv/project", "a.example"), spoil()); err != nil {
			t.Fatal(err)
		}
		if rules, err := a.Rules("/srv/project"); err == nil || rules != nil {
			t.Errorf("a file counts that %s: %q", name, rules)
		}
		if err := a.Add("/srv/project", "c.example"); err == nil {
			t.Errorf("a file is written on that %s", name)
		}
		if err := os.RemoveAll(a.Dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Add("/srv/project", "a.example"); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]os.FileMode{path: 0o600, a.Dir: 0o700} {
		if info, err := os.Stat(at); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has the mode %v, %v", at, info.Mode(), err)
		}
	}
}
