package machine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/flock"
	"github.com/sourcery-zone/sandbox/internal/tree"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

// Erase expects the lock to be held. The sandbox disappears in one step: if
// its files cannot be deleted to the end, it is still not half there.
func (s *Sandbox) Erase() error {
	errs := []error{os.RemoveAll(s.Files().RuntimeDir())} // while the name is still ours
	doomed := filepath.Join(s.host.Dirs.State, durable.HiddenName(durable.RemovedPrefix, s.Name))
	if err := os.Rename(s.Files().Dir(), doomed); err != nil {
		doomed = s.Files().Dir() // a mount point, for instance
	}
	return errors.Join(append(errs, tree.Remove(doomed))...)
}

// youngest is how old a hidden directory must be before it is taken for
// abandoned if nobody holds its lock: its maker may be about to.
const youngest = time.Minute

// sweep deletes what commands that were killed have left of sandboxes that
// they made or removed. What it cannot delete is tried again another time.
func (h *Host) sweep() {
	entries, err := os.ReadDir(h.Dirs.State)
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), durable.DraftPrefix) || strings.HasPrefix(e.Name(), durable.RemovedPrefix) {
			h.sweepOne(filepath.Join(h.Dirs.State, e.Name()))
		}
	}
}

func (h *Host) sweepOne(dir string) {
	info, err := os.Stat(dir)
	if err != nil || time.Since(info.ModTime()) < youngest {
		return
	}
	lock, err := flock.Try(filepath.Join(dir, layout.LockFile), false)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return // somebody is at it
	}
	if err == nil {
		defer lock.Close()
	}
	_ = tree.Remove(dir)
}
