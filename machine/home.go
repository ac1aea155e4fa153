package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/flock"
	"github.com/sourcery-zone/sandbox/internal/tree"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// restoreHome puts the home of the snapshot in the place of the sandbox's, if
// that was asked for. What was there is kept until the guest has started: an
// early end of ours, at any moment, leaves it for recoverHome.
func (v *supervisor) restoreHome(ctx context.Context) error {
	if err := v.recoverHome(); err != nil || !v.withHome {
		return err
	}
	draft := v.s.Files().Path(durable.HiddenName(durable.DraftPrefix, layout.HomeDir))
	if err := v.copyHome(ctx, filepath.Join(v.saved.dir, layout.HomeDir), draft); err != nil {
		return errors.Join(err, tree.Remove(draft))
	}
	if err := os.Rename(v.s.Files().Home(), v.s.Files().Path(layout.HomeBefore)); err != nil {
		return err
	}
	return os.Rename(draft, v.s.Files().Home())
}

// recoverHome takes back what a restore did to the home that did not come to
// its end.
func (v *supervisor) recoverHome() error {
	before := v.s.Files().Path(layout.HomeBefore)
	if !exists(before) {
		return nil
	}
	return errors.Join(durable.RemoveDir(v.s.Files().Home()), os.Rename(before, v.s.Files().Home()))
}

// copyHome copies a home that nobody writes to.
func (v *supervisor) copyHome(ctx context.Context, from, to string) error {
	return tree.Copy(ctx, from, to, func(path string) {
		v.log.Warn("a device is not copied with the home", "path", path)
	})
}

// homeCopy is a copy of a sandbox's home as it was at one moment, in a
// directory that nobody else uses and that vanishes with its owner's lock.
type homeCopy struct {
	dir  string
	lock *os.File
}

func (c *homeCopy) home() string { return filepath.Join(c.dir, layout.HomeDir) }

func (c *homeCopy) close() error {
	defer c.lock.Close()
	return tree.Remove(c.dir)
}

// takeHome copies the home while nobody writes to it: the guest stands still, or
// does not run. The caller closes the copy.
func (s *Sandbox) takeHome(ctx context.Context) (_ *homeCopy, err error) {
	draft := &Sandbox{Name: durable.HiddenName(durable.DraftPrefix, s.Name), host: s.host}
	if err := os.Mkdir(draft.Files().Dir(), 0o700); err != nil {
		return nil, err
	}
	c := &homeCopy{dir: draft.Files().Dir()}
	if c.lock, err = draft.Files().Lock(); err != nil {
		return nil, errors.Join(err, os.Remove(c.dir))
	}
	if err := s.copyHomeTo(ctx, draft); err != nil {
		return nil, errors.Join(fmt.Errorf("copying the home of %s: %w", s.Name, err), c.close())
	}
	return c, nil
}

func (s *Sandbox) copyHomeTo(ctx context.Context, draft *Sandbox) error {
	lock, err := s.Files().Lock()
	if errors.Is(err, flock.ErrLocked) && s.State().live() {
		if err := s.checkStarted(); err != nil {
			return err
		}
		return s.api().CopyHome(ctx, api.CopyHomeRequest{Draft: draft.Name})
	}
	if errors.Is(err, flock.ErrLocked) {
		return s.busy()
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	return tree.Copy(ctx, s.Files().Home(), draft.Files().Home(), func(string) {})
}

// saveHome gives the draft a copy of the home.
func (v *supervisor) saveHome(ctx context.Context, draft layout.Sandbox) error {
	if !v.standing.TryLock() {
		return errStanding
	}
	defer v.standing.Unlock()
	if st := v.currentState(); st.Status != StatusRunning && !v.paused.Load() {
		return v.s.notRunning(st)
	}
	_, err := v.standingStill(ctx, func() error { return v.copyHome(ctx, v.s.Files().Home(), draft.Home()) })
	return err
}
