package secret

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestTheStoreKeepsWhatItWasGiven(t *testing.T) {
	s := Store{filepath.Join(t.TempDir(), "state", "secrets")}
	if all, err := s.List(); len(all) != 0 || err != nil {
		t.Errorf("in none there is %v, %v", all, err)
	}
	if _, err := s.Get("K"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of none: %v", err)
	}
	if err := s.Remove("K"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of none: %v", err)
	}
	before := time.Now().Add(-time.Minute)
	for _, text := range []string{"first", "second, which is longer"} {
		for _, name := range []string{"K", "_a1"} {
			if err := s.Set(name, value(t, text+name)); err != nil {
				t.Fatal(err)
			}
			if v, err := s.Get(name); err != nil || v != value(t, text+name) {
				t.Errorf("%s: %q, %v", name, v.Reveal(), err)
			}
		}
	}
	all, err := s.List()
	if err != nil || len(all) != 2 || all[0].Name != "K" || all[1].Name != "_a1" || all[0].Time.Before(before) {
		t.Errorf("there are %v, %v", all, err)
	}
	if err := s.Remove("K"); err != nil {
		t.Error(err)
	}
	if _, err := s.Get("K"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was removed: %v", err)
	}
	for _, name := range []string{"", ".", "..", "../K", "a/b", ".draft", "a b", "K\x00", strings.Repeat("K", 129)} {
		_, err := s.Get(name)
		if err == nil || s.Set(name, value(t, "v")) == nil || s.Remove(name) == nil {
			t.Errorf("%q is taken for a name", name)
		}
	}
	if entries, err := os.ReadDir(s.Dir); err != nil || len(entries) != 1 {
		t.Errorf("there are files %v, %v", entries, err)
	}
}

func TestTheStoreIsTheUsersAlone(t *testing.T) {
	s := Store{filepath.Join(t.TempDir(), "secrets")}
	other := filepath.Join(t.TempDir(), "other")
	old := unix.Umask(0)
	t.Cleanup(func() { unix.Umask(old) })
	if err := os.Mkdir(s.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.Set("K", value(t, testValue)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.Dir, "K")
	for path, want := range map[string]os.FileMode{s.Dir: 0o700, file: 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has the mode %v, %v", path, info.Mode(), err)
		}
	}
	for mode, refusal := range map[os.FileMode]string{0o640: "others may read", 0o604: "others may read", 0o602: "can be written by everybody", 0o400: ""} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		v, err := s.Get("K")
		if refusal == "" != (err == nil) || err != nil && (!strings.Contains(err.Error(), refusal) || strings.Contains(err.Error(), testValue) || !v.IsZero()) {
			t.Errorf("with the mode %o: %v, %v", mode, v, err)
		}
	}
	if err := errors.Join(os.WriteFile(other, []byte("theirs"), 0o600), os.Remove(file), os.Symlink(other, file)); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Get("K"); err == nil || !strings.Contains(err.Error(), "is a link") || !v.IsZero() {
		t.Errorf("a link: %v, %v", v, err)
	}
	// What is set takes the link's place, and is not written where it leads.
	if err := s.Set("K", value(t, testValue)); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(other); err != nil || string(text) != "theirs" {
		t.Errorf("behind the link there is %q, %v", text, err)
	}
	if v, err := s.Get("K"); err != nil || v != value(t, testValue) {
		t.Errorf("after the link: %v, %v", v, err)
	}
	if err := errors.Join(os.Remove(file), unix.Mkfifo(file, 0o600)); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Get("K"); err == nil {
		t.Errorf("a fifo: %v", v)
	}
	if err := os.Chmod(s.Dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := s.Set("K", value(t, testValue)); err == nil || !strings.Contains(err.Error(), "can be written by everybody") {
		t.Errorf("in a directory that everybody may write: %v", err)
	}
	if os.Getuid() != 0 {
		t.Skip("the rest makes a file of another user: run it as root")
	}
	if err := errors.Join(os.Chmod(s.Dir, 0o700), os.Remove(file), os.WriteFile(file, []byte("x"), 0o600), os.Chown(file, 54321, 54321)); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Get("K"); err == nil || !strings.Contains(err.Error(), "belongs to the user 54321") {
		t.Errorf("of another user: %v, %v", v, err)
	}
}

// TestNothingIsLeftOfWhatWasBeingStored has what a kill leaves.
func TestNothingIsLeftOfWhatWasBeingStored(t *testing.T) {
	s := Store{t.TempDir()}
	if err := s.Set("K", value(t, "v")); err != nil {
		t.Fatal(err)
	}
	for _, do := range []func() error{func() error { return s.Set("A", value(t, "v")) }, func() error { return s.Remove("K") }} {
		if err := os.WriteFile(filepath.Join(s.Dir, draft), []byte(testValue), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := do(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(filepath.Join(s.Dir, draft)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a draft is left: %v", err)
		}
	}
	if all, err := s.List(); err != nil || len(all) != 1 || all[0].Name != "A" {
		t.Errorf("there are %v, %v", all, err)
	}
}

func TestSeveralStoreAtOnce(t *testing.T) {
	s := Store{t.TempDir()}
	names := []string{"A", "B", "C"}
	var all sync.WaitGroup
	for i := range 24 {
		all.Go(func() {
			if err := s.Set(names[i%3], value(t, fmt.Sprint("value ", i))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for i, name := range names {
		v, err := s.Get(name)
		var n int
		if _, scanErr := fmt.Sscanf(v.Reveal(), "value %d", &n); err != nil || scanErr != nil || n%3 != i {
			t.Errorf("%s is %q, %v", name, v.Reveal(), err)
		}
	}
	stored, err := s.List()
	if err != nil || !slices.EqualFunc(stored, names, func(s Stored, name string) bool { return s.Name == name }) {
		t.Errorf("there are %v, %v", stored, err)
	}
}
