package machine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

func TestRenameTakesEverythingAlong(t *testing.T) {
	h := testHost(t)
	s := create(t, h, "old")
	if err := os.WriteFile(filepath.Join(s.Files().Home(), "note"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := layout.ReadKey(s.Files().Key(layout.HostKey))
	if err != nil {
		t.Fatal(err)
	}
	renamed, err := s.Rename("new")
	if err != nil {
		t.Fatal(err)
	}
	c, err := renamed.Config()
	if err != nil || c.Name != "new" {
		t.Errorf("its configuration is called %s (%v)", c.Name, err)
	}
	if note, err := os.ReadFile(filepath.Join(renamed.Files().Home(), "note")); err != nil || string(note) != "kept" {
		t.Errorf("the home: %s, %v", note, err)
	}
	after, err := layout.ReadKey(renamed.Files().Key(layout.HostKey))
	if err != nil || string(after.PublicKey().Marshal()) != string(before.PublicKey().Marshal()) {
		t.Errorf("the host key changed (%v)", err)
	}
	if info, err := os.Stat(renamed.Files().Key(layout.HostKey)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the host key's mode: %v (%v)", info.Mode(), err)
	}
	if s.Exists() {
		t.Error("the old name is still there")
	}
	if st := renamed.State(); st.Status != StatusCreated {
		t.Errorf("it is %s (%s)", st.Status, st.Reason)
	}
}

func TestRenameRefuses(t *testing.T) {
	h := testHost(t)
	create(t, h, "taken")
	for name, tt := range map[string]struct{ to, want string }{
		"a taken name":  {"taken", "exists already"},
		"a bad name":    {"../x", "not valid"},
		"what runs":     {"other", "[stop running]"},
		"a socket path": {strings.Repeat("x", 63), "bytes too long"},
	} {
		t.Run(name, func(t *testing.T) {
			s := create(t, h, map[bool]string{true: "running", false: "idle"}[name == "what runs"])
			defer s.Remove(context.Background(), true)
			switch name {
			case "what runs":
				fakeSupervisor(t, s, sleeper, nil)
			case "a socket path":
				s.host = &Host{Dirs: h.Dirs}
				s.host.Dirs.Runtime = "/" + strings.Repeat("r", 60)
			}
			if _, err := s.Rename(tt.to); err == nil || !strings.Contains(fmt.Sprint(err, remedy.Of(err)), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
			if !s.Exists() {
				t.Error("it is gone")
			}
		})
	}
}

// A rename that was cut short after its one step is complete all the same.
func TestNameIsTheDirectorys(t *testing.T) {
	h := testHost(t)
	s := create(t, h, "old")
	if err := os.Rename(s.Files().Dir(), filepath.Join(h.Dirs.State, "new")); err != nil {
		t.Fatal(err)
	}
	c, err := h.mustGet(t, "new").Config()
	if err != nil || c.Name != "new" {
		t.Errorf("its configuration is called %s (%v)", c.Name, err)
	}
}

func TestRacingRenamesLoseNothing(t *testing.T) {
	h := testHost(t)
	for _, name := range []string{"a", "b", "c", "d"} {
		create(t, h, name)
	}
	var all sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		from, to := string("abcd"[i%4]), []string{"x", "y", "a", "b"}[i/4]
		all.Go(func() {
			s := &Sandbox{Name: from, host: h}
			_, errs[i] = s.Rename(to)
		})
		all.Go(func() { _ = (&Sandbox{Name: from, host: h}).State() })
	}
	all.Wait()
	left, err := h.List()
	if err != nil || len(left) != 4 {
		t.Fatalf("%d of 4 sandboxes are left (%v)", len(left), err)
	}
	for _, s := range left {
		if st := s.State(); st.Status != StatusCreated {
			t.Errorf("%s is %s (%s)", s.Name, st.Status, st.Reason)
		}
	}
}

// Looking at a sandbox, or waiting for it, must not make a start fail.
func TestLookingTakesNoLock(t *testing.T) {
	s := create(t, testHost(t), "a")
	if err := durable.WriteJSON(s.Files().Path(layout.StateFile), State{Status: StatusRunning}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				s.State()
				_ = s.Wait(ctx)
			}
		})
	}
	for range 500 {
		lock, err := s.Files().Lock()
		if err != nil {
			t.Fatal(err)
		}
		lock.Close()
	}
	cancel()
	all.Wait()
}

func TestWaitReturnsToAllWhenTheLockIsGivenBack(t *testing.T) {
	s := create(t, testHost(t), "a")
	lock, err := s.Files().Lock()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 3)
	for range cap(ended) {
		go func() { ended <- s.Wait(context.Background()) }()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := s.Wait(ctx); err == nil {
		t.Error("the wait ended while the lock was held")
	}
	lock.Close()
	for range cap(ended) {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
