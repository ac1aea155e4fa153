package virtiofs

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/virtiofs/gate"
	"github.com/sourcery-zone/sandbox/virtiofs/virtiofstest"
)

// A touch of the guest's changes nothing here, not even when the inode was changed, of which Git and others conclude that
// they have to read a file again; and other times are set as ever.
func TestTouchesDoNotReachTheHost(t *testing.T) {
	c := realConfig(t, os.Geteuid())
	fill(t, c.Directory.Path(), os.Geteuid())
	var told events
	c.Touches, c.Judged = true, told.add
	s, err := realDaemon(t).Start(t.Context(), c)
	skipWithoutGate(t, err)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	g := guest{connect(t, c.Socket), t}
	stat := func(name string) (st unix.Stat_t) {
		t.Helper()
		if err := unix.Lstat(filepath.Join(c.Directory.Path(), name), &st); err != nil {
			t.Fatal(err)
		}
		return st
	}
	touch := uint64(gate.TouchTime.Sec)
	handle, err := g.Open(g.node("file"), unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	told.take()
	for name, attr := range map[string]virtiofstest.Attr{
		"file": {MTime: &touch}, "dir": {MTime: &touch}, "frozen/file": {MTime: &touch},
		"open file": {MTime: &touch, Handle: &handle},
	} {
		at := name
		if name == "open file" {
			at = "file"
		}
		before := stat(at)
		if err := g.Setattr(g.node(at), attr); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if after := stat(at); after != before {
			t.Errorf("%s was %+v, and is %+v", name, before, after)
		}
	}
	if text := told.take(); text != "" {
		t.Errorf("the gate told of %s", text)
	}
	if err := g.Setattr(g.node("file"), virtiofstest.Attr{MTime: new(uint64(1234567))}); err != nil {
		t.Fatal(err)
	}
	if got := stat("file").Mtim.Sec; got != 1234567 {
		t.Errorf("the time was set to %d", got)
	}
}
