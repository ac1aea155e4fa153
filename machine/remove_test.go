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
	"github.com/sourcery-zone/sandbox/internal/flock"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

func TestThoseWhoOnlyLookDoNotHoldTheLock(t *testing.T) {
	s := create(t, testHost(t), "a")
	stop := make(chan struct{})
	var lookers sync.WaitGroup
	for range 4 {
		lookers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = s.held()
					_ = s.Wait(context.Background())
				}
			}
		})
	}
	for i := range 500 {
		lock, err := s.Files().Lock()
		if err != nil {
			t.Errorf("try %d: %v", i, err)
			break
		}
		lock.Close()
	}
	close(stop)
	lookers.Wait()
}

func TestDamagedStateOfARunningSandboxIsBroken(t *testing.T) {
	s := create(t, testHost(t), "a")
	lock, err := s.Files().Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := os.WriteFile(s.Files().Path(layout.StateFile), []byte(`{"status": "run`), 0o600); err != nil {
		t.Fatal(err)
	}
	if st := s.State(); st.Status != StatusBroken || !strings.Contains(st.Reason, "can be stopped") {
		t.Errorf("state %s (%s), want broken, with what can be done", st.Status, st.Reason)
	}
	// Its home is somebody's work: nobody is to be told to remove it.
	if _, err := s.Dial(t.Context()); err == nil || !strings.Contains(fmt.Sprint(err, remedy.Of(err)), "[end a]") {
		t.Errorf("error %v, want the remedy", err)
	}
}

func TestWhatKilledCommandsLeaveIsSweptAway(t *testing.T) {
	h := testHost(t)
	hidden := func(prefix, name string, age time.Duration, held bool) string {
		t.Helper()
		s := create(t, h, name)
		dir := filepath.Join(h.Dirs.State, durable.HiddenName(prefix, name))
		if err := os.Rename(s.Files().Dir(), dir); err != nil {
			t.Fatal(err)
		}
		if held {
			lock, err := flock.Try(filepath.Join(dir, layout.LockFile), false)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { lock.Close() })
		}
		made := time.Now().Add(-age)
		if err := os.Chtimes(dir, made, made); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	leftovers := []string{hidden(durable.DraftPrefix, "a", time.Hour, false), hidden(durable.RemovedPrefix, "b", time.Hour, false)}
	busy := []string{hidden(durable.DraftPrefix, "c", time.Hour, true), hidden(durable.DraftPrefix, "d", 0, false)}
	if all, err := h.List(); err != nil || len(all) != 0 {
		t.Errorf("list: %d sandboxes, %v; want none", len(all), err)
	}
	create(t, h, "new")
	for _, dir := range leftovers {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is still there", dir)
		}
	}
	for _, dir := range busy {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("what somebody is at was removed: %v", err)
		}
	}
}
