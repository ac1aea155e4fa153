package machine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/virtiofs"
)

// OriginTag is the tag under which a fork has the snapshot that it began with.
const OriginTag = "origin"

// ForkOptions say what a fork is like.
type ForkOptions struct {
	Name      string // of the new sandbox
	EmptyHome bool   // begin with an empty home, not with a copy
	Writable  bool   // may write to the shares that the other sandbox may write to: two guests at once see no locks of each other
	Remove    bool   // remove the fork when it stops
}

// Forkable is a snapshot of which forks can be made.
type Forkable struct {
	s         *Sandbox
	snap      Snapshot
	temporary bool
}

// Forkable returns the snapshot with that tag, once it is sure that it is
// intact and fits this machine. Without a tag, it is one of the running sandbox
// as it is now. The caller closes it when all forks are made.
func (s *Sandbox) Forkable(ctx context.Context, tag string) (*Forkable, error) {
	c, err := s.Config()
	if err == nil {
		err = s.host.checkShares(c)
	}
	if err != nil {
		return nil, err
	}
	if tag == "" {
		snap, err := s.SaveSnapshot(ctx, "fork-"+strings.ToLower(rand.Text()[:8]), SaveOptions{Passing: true})
		return &Forkable{s: s, snap: snap, temporary: true}, err
	}
	snap, err := s.Snapshot(tag)
	if err == nil {
		err = s.checkFits(ctx, snap)
	}
	if err == nil {
		err = s.VerifySnapshot(ctx, snap)
	}
	return &Forkable{s: s, snap: snap}, err
}

// Close removes the snapshot, if it was saved for the forks alone: they have it
// too.
func (f *Forkable) Close() error {
	if !f.temporary {
		return nil
	}
	return f.s.RemoveSnapshot(f.snap.Tag)
}

// Fork makes a new sandbox whose first start goes on from the snapshot. Ports
// that the other one publishes are published by free ones.
func (f *Forkable) Fork(ctx context.Context, o ForkOptions) (*Sandbox, error) {
	c, err := f.s.Config()
	if err != nil {
		return nil, err
	}
	c.Name, c.Created, c.Remove, c.ForkOf, c.SSHPort = o.Name, time.Now().UTC(), o.Remove, f.s.Name, 0
	for i := range c.Forwards {
		c.Forwards[i].HostPort = 0
	}
	if !o.Writable {
		c.Shares = readOnly(c.Shares)
	}
	if err := f.s.host.checkSocketPath(c); err != nil {
		return nil, err
	}
	return f.s.host.create(c, func(draft *Sandbox) error {
		if err := f.link(ctx, draft, o); err != nil {
			return fmt.Errorf("taking the snapshot %s of %s: %w", f.snap.Tag, f.s.Name, err)
		}
		if c.NoHome {
			return nil
		}
		if o.EmptyHome {
			return makeMountPoints(draft, c)
		}
		home := f.s.HomePath()
		if f.snap.Home != nil {
			home = f.s.snapshotFile(f.snap.Tag, homeDir)
		}
		return copyTree(ctx, home, draft.HomePath())
	})
}

// firstState is the directory of the snapshot with which the sandbox starts the
// first time: a fork's origin, and for others empty.
func (s *Sandbox) firstState() string {
	c, err := s.Config()
	if err != nil || c.ForkOf == "" || s.State().Status != StatusCreated {
		return ""
	}
	return s.snapshotDir(OriginTag)
}

// link gives the draft the snapshot as its origin. It stays when the other
// sandbox goes.
func (f *Forkable) link(ctx context.Context, draft *Sandbox, o ForkOptions) error {
	snap := f.snap
	snap.Tag = OriginTag
	if !o.Writable {
		snap.Needs.Shares = readOnly(snap.Needs.Shares)
	}
	return linkSnapshot(ctx, f.s.snapshotDir(f.snap.Tag), draft.snapshotDir(OriginTag), snap)
}

// readOnly is the shares for a guest that may not write to them.
func readOnly(shares []virtiofs.Share) []virtiofs.Share {
	shares = slices.Clone(shares)
	for i := range shares {
		shares[i].ReadOnly = true
	}
	return shares
}

// makeMountPoints makes in an empty home the directories on which the guest has
// shares mounted already: they vanish with what they are mounted on.
func makeMountPoints(draft *Sandbox, c Config) error {
	img, err := draft.host.Image(c.Image)
	if err != nil {
		return err
	}
	home, err := os.OpenRoot(draft.HomePath())
	if err != nil {
		return err
	}
	defer home.Close()
	errs := make([]error, 0, len(c.Shares))
	for _, share := range c.Shares {
		if rel, ok := withinHome(img.Manifest.User.Home, share.Target); ok {
			errs = append(errs, home.MkdirAll(rel, 0o755))
		}
	}
	return errors.Join(errs...)
}

// withinHome returns a path in the guest relative to its home, if it is below that.
func withinHome(home, target string) (rel string, ok bool) {
	rel, err := filepath.Rel(home, target)
	if err != nil || rel == "." || !filepath.IsLocal(rel) {
		return "", false
	}
	return rel, true
}
