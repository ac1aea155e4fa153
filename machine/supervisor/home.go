package supervisor

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/tree"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

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
	if !durable.Exists(before) {
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

// saveHome gives the draft a copy of the home.
func (v *supervisor) saveHome(ctx context.Context, draft layout.Sandbox) error {
	if !v.transition.TryLock() {
		return errTransition
	}
	defer v.transition.Unlock()
	if st := v.currentState(); st.Status != machine.StatusRunning && !v.paused.Load() {
		return v.s.NotRunning(st)
	}
	_, err := v.whileStopped(ctx, func() error { return v.copyHome(ctx, v.s.Files().Home(), draft.Home()) })
	return err
}
