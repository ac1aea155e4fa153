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

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/tree"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/snapshot"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// OriginTag is the tag under which a fork has the snapshot that it began with.
const OriginTag = "origin"

// ForkOptions say what a fork is like.
type ForkOptions struct {
	Name     string // of the new sandbox
	Writable bool   // may write to the shares that the other sandbox may write to: two guests at once see no locks of each other
	Remove   bool   // remove the fork when it stops
	// Last says that no other fork is made of the same Forkable, so that this one
	// may have what the others got copies of.
	Last bool
}

// Forkable is a snapshot of which forks can be made.
type Forkable struct {
	s         *Sandbox
	snap      snapshot.Manifest
	temporary bool // the snapshot is for the forks alone

	home string    // what the forks' homes are copies of; empty without one
	copy *homeCopy // what home is in, if it is for the forks alone
}

// Forkable returns the snapshot with that tag, once it is sure that it is
// intact and fits this machine. Without a tag, it is one of the running sandbox
// as it is now. Unless the homes of the forks are to be empty, they are copies
// of the snapshot's, or if that has none, of what the sandbox's is now. The
// caller closes it when all forks are made.
func (s *Sandbox) Forkable(ctx context.Context, tag string, emptyHome bool) (*Forkable, error) {
	c, err := s.Config()
	if err == nil {
		err = s.host.checkShares(c)
	}
	if err != nil {
		return nil, err
	}
	f := &Forkable{s: s}
	withHome := !emptyHome && !c.NoHome
	if tag == "" {
		f.snap, err = s.SaveSnapshot(ctx, "fork-"+strings.ToLower(rand.Text()[:8]), SaveOptions{NoSync: true, WithHome: withHome})
		f.temporary = err == nil
	} else {
		f.snap, err = s.intactSnapshot(ctx, tag)
	}
	switch {
	case err != nil || !withHome:
	case f.snap.Home != nil:
		f.home = filepath.Join(s.Files().Snapshot(f.snap.Tag), layout.HomeDir)
	default:
		if f.copy, err = s.takeHome(ctx); err == nil {
			f.home = f.copy.home()
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// intactSnapshot returns a snapshot that can be restored.
func (s *Sandbox) intactSnapshot(ctx context.Context, tag string) (snapshot.Manifest, error) {
	snap, err := s.Snapshot(tag)
	if err == nil {
		err = s.checkFits(ctx, snap)
	}
	if err == nil {
		err = s.VerifySnapshot(ctx, snap)
	}
	return snap, err
}

// Close removes what was made for the forks alone: they have it too.
func (f *Forkable) Close() error {
	var err error
	if f.copy != nil {
		err = f.copy.close()
	}
	if f.temporary {
		err = errors.Join(err, f.s.RemoveSnapshot(f.snap.Tag))
	}
	return err
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
		if err := f.giveAuthority(draft); err != nil {
			return err
		}
		switch {
		case c.NoHome:
			return nil
		case f.home == "":
			return makeMountPoints(draft, c)
		}
		return f.giveHome(ctx, draft, o.Last)
	})
}

// giveAuthority gives the draft the certificate authority that programs in its memory
// believe, if there is one.
func (f *Forkable) giveAuthority(draft *Sandbox) error {
	text, err := os.ReadFile(f.s.Files().Key(layout.AuthorityKey))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.WriteFile(draft.Files().Key(layout.AuthorityKey), text, 0o600)
}

// giveHome gives the draft a copy of the home, or that itself.
func (f *Forkable) giveHome(ctx context.Context, draft *Sandbox, last bool) error {
	if last && (f.copy != nil || f.temporary) {
		err := os.Remove(draft.Files().Home()) // it is empty
		if err == nil {
			err = os.Rename(f.home, draft.Files().Home())
		}
		if err == nil {
			return nil
		} // a directory that its owner may not write to stays where it is (rename(2))
	}
	return tree.Copy(ctx, f.home, draft.Files().Home(), func(string) {})
}

// firstState is the directory of the snapshot with which the sandbox starts the
// first time: a fork's origin, and for others empty.
func (s *Sandbox) firstState() string {
	c, err := s.Config()
	if err != nil || c.ForkOf == "" || s.State().Status != StatusCreated {
		return ""
	}
	return s.Files().Snapshot(OriginTag)
}

// link gives the draft the snapshot as its origin. It stays when the other
// sandbox goes.
func (f *Forkable) link(ctx context.Context, draft *Sandbox, o ForkOptions) error {
	snap := f.snap
	snap.Tag, snap.Home = OriginTag, nil // the home is the fork's own
	if !o.Writable {
		snap.Needs.Shares = readOnly(snap.Needs.Shares)
	}
	origin := draft.Files().Snapshot(OriginTag)
	if err := snapshot.Link(ctx, f.s.Files().Snapshot(f.snap.Tag), origin, snap); err != nil {
		return err
	}
	if durable.Exists(filepath.Join(origin, layout.WorkspaceFile)) {
		return nil
	}
	return f.s.SaveWorkspaces(ctx, origin) // an older snapshot: what is known now
}

// readOnly is the shares for a guest that may not write to them.
func readOnly(shares []virtiofs.Share) []virtiofs.Share {
	shares = slices.Clone(shares)
	for i := range shares {
		shares[i].ReadOnly, shares[i].Quota, shares[i].Watch = true, 0, false
	}
	return shares
}

// makeMountPoints makes in an empty home the directories and files on which the guest
// has shares mounted already: they vanish with what they are mounted on.
func makeMountPoints(draft *Sandbox, c Config) error {
	img, err := draft.host.Image(c.Image)
	if err != nil {
		return err
	}
	home, err := os.OpenRoot(draft.Files().Home())
	if err != nil {
		return err
	}
	defer home.Close()
	errs := make([]error, 0, len(c.Shares))
	for _, share := range c.Shares {
		rel, ok := withinHome(img.Manifest.User.Home, share.Target)
		switch {
		case !ok:
		case share.File:
			errs = append(errs, home.MkdirAll(filepath.Dir(rel), 0o755), home.WriteFile(rel, nil, 0o644))
		default:
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
