package supervisor

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// touched waits until the guest is told of that name of the share, and returns it as it was told.
func (l *life) touched(tag, path string) agent.Touch {
	l.t.Helper()
	for {
		names := <-l.guest.agent.Guest.Touched
		if i := slices.IndexFunc(names[tag], func(n agent.Touch) bool { return n.Path == path }); i >= 0 {
			return names[tag][i]
		}
	}
}

func TestGuestIsToldOfChangesOfItsShares(t *testing.T) {
	shared := t.TempDir()
	writeFile(t, filepath.Join(shared, "before"), "")
	l := newLife(t, func(c *machine.Config) {
		c.Shares = []virtiofs.Share{{Source: shared, Target: "/srv/x", Watch: true}, {Source: t.TempDir(), Target: "/srv/y"}}
	})
	pluggable(l)
	l.guest.agent.Guest.Touched = make(chan map[string][]agent.Touch)
	l.begin()
	l.await(machine.StageAgent)
	// From then on, without a gap.
	writeFile(t, filepath.Join(shared, "before"), "x")
	if n := l.touched("share0", "before"); n.Other {
		t.Errorf("a file that was written is told as %+v", n)
	}
	if err := os.Remove(filepath.Join(shared, "before")); err != nil {
		t.Fatal(err)
	}
	if n := l.touched("share0", "before"); !n.Other {
		t.Errorf("a file that was removed is told as %+v", n)
	}

	// So it is with one that comes while the guest runs, until it goes.
	plugged := admitted(t, l, "/srv/z")
	plugged.Watch = true
	if _, err := l.calls.Mount(t.Context(), api.MountRequest{Share: plugged}); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(plugged.Source, "new"), "x")
	l.touched("share2", "new")
	// A guest that stands still is told later.
	if err := l.calls.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(shared, "paused"), "x")
	if err := l.calls.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.touched("share0", "paused")
	server := l.v.currentServers()[3]
	go func() { // what is still to be told of it
		for range l.guest.agent.Guest.Touched {
		}
	}()
	if err := l.calls.Unmount(t.Context(), api.UnmountRequest{Target: "/srv/z"}); err != nil {
		t.Fatal(err)
	}
	<-server.Done()
	if _, err := server.changes.Take(t.Context(), 1); err == nil {
		t.Error("what is unmounted is still watched")
	}
}
