package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/flock"
	"github.com/sourcery-zone/sandbox/internal/tree"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/workspace"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// Workspaces are the copy-on-write shares of a running sandbox.
type Workspaces struct {
	// Shares are in the order in which the guest mounts them.
	Shares []*Workspace

	s       *Sandbox
	client  *agent.Client
	records map[string]*workspace.Record // by the places of the shares in the guest
	lock    *os.File                     // nil: nothing is to be changed
}

// Workspace is one of them.
type Workspace struct {
	workspace.Share
	Config virtiofs.Share
	guest  *agent.Workspace
}

// Workspaces opens the copy-on-write shares, each of which must still be what was shared. Who wants to apply or discard
// says change, and is alone then. The caller closes them.
func (s *Sandbox) Workspaces(ctx context.Context, change bool) (_ *Workspaces, err error) {
	c, err := s.Config()
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(c.Shares, copyOnWrite) {
		return nil, fmt.Errorf("the sandbox %s has no copy-on-write share: what its guest writes is in the shared directories already, or in a clone, from which git fetches", s.Name)
	}
	img, err := s.host.Image(c.Image)
	if err != nil {
		return nil, err
	}
	shares, err := virtiofs.Arrange(c.Shares, img.Manifest.User.Home)
	if err != nil {
		return nil, err
	}
	w := &Workspaces{s: s}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
		}
	}()
	if change {
		if w.lock, err = s.LockWorkspaces(); err != nil {
			return nil, err
		}
	}
	if w.client, err = s.Dial(ctx); err != nil {
		return nil, err
	}
	if w.records, err = s.workspaceRecords(); err != nil {
		return nil, err
	}
	served := s.State().Shares
	for _, share := range shares {
		if !share.CopyOnWrite {
			continue
		}
		i := slices.IndexFunc(served, func(is ServedShare) bool { return is.Target == share.Target })
		if i < 0 {
			return nil, fmt.Errorf("the share at %s is not served", share.Target)
		}
		opened, err := w.open(ctx, share, served[i].Tag)
		if err != nil {
			return nil, err
		}
		opened.Mounted = mountedIn(share, shares)
		w.Shares = append(w.Shares, opened)
	}
	return w, nil
}

// LockWorkspaces makes sure that nobody else applies or discards changes until the caller closes the lock.
func (s *Sandbox) LockWorkspaces() (*os.File, error) {
	lock, err := flock.Try(s.Files().Path(layout.WorkspaceLock), true)
	if errors.Is(err, flock.ErrLocked) {
		return nil, fmt.Errorf("another command applies or discards changes of %s: try again when it is done", s.Name)
	}
	return lock, err
}

func (w *Workspaces) open(ctx context.Context, share virtiofs.Share, tag string) (*Workspace, error) {
	dir, err := w.s.host.OpenShare(w.s.Name, share)
	if err != nil {
		return nil, err
	}
	set, err := share.Judge(dir)
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	guest, err := w.client.Workspace(ctx, tag)
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return &Workspace{
		Share:  workspace.Share{Guest: guest, Host: dir, Judge: set.Judge, Base: w.s.baseOf(share), Record: w.records[share.Target]},
		Config: share, guest: guest,
	}, nil
}

// mountedIn are the places, relative to a share, at which the guest has others.
func mountedIn(share virtiofs.Share, all []virtiofs.Share) map[string]bool {
	mounted := make(map[string]bool)
	for _, other := range all {
		rel, ok := strings.CutPrefix(other.Target, strings.TrimSuffix(share.Target, "/")+"/")
		for ; ok && rel != "."; rel = path.Dir(rel) { // the directories that lead there are made with it
			mounted[rel] = true
		}
	}
	return mounted
}

// Save keeps the records of what was applied and discarded.
func (w *Workspaces) Save() error { return w.s.saveWorkspaceRecords(w.records) }

// Close ends the connection to the guest.
func (w *Workspaces) Close() error {
	var errs []error
	for _, share := range w.Shares {
		errs = append(errs, share.guest.Close(), share.Host.Close())
	}
	if w.client != nil {
		errs = append(errs, w.client.Close())
	}
	if w.lock != nil {
		errs = append(errs, w.lock.Close())
	}
	return errors.Join(errs...)
}

// workspaceRecords has a record for each copy-on-write share.
func (s *Sandbox) workspaceRecords() (map[string]*workspace.Record, error) {
	c, err := s.Config()
	if err != nil {
		return nil, err
	}
	records := make(map[string]*workspace.Record)
	err = durable.ReadJSON(s.Files().Path(layout.WorkspaceFile), &records)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("reading what was applied of the sandbox %s: %w", s.Name, err)
	}
	for _, share := range c.Shares {
		if share.CopyOnWrite && records[share.Target] == nil {
			records[share.Target] = &workspace.Record{Since: c.Created}
		}
	}
	return records, nil
}

// aside is the name of the record of a share that is not mounted. Its place may be another one's by now.
func aside(share virtiofs.Share) string { return share.Target + "\n" + share.Source }

// BeginWorkspace begins to keep a record of a copy-on-write share that the guest is about to get, whose target is absolute, or
// goes on with that of the time when it had it before: its changes are there again.
func (s *Sandbox) BeginWorkspace(ctx context.Context, share virtiofs.Share) error {
	records, err := s.workspaceRecords()
	if err != nil {
		return err
	}
	was, base := records[aside(share)], s.mergeBase(share)
	if was != nil {
		delete(records, aside(share))
		err = os.Rename(base+asideOf(share), base)
	} else {
		was = &workspace.Record{Since: time.Now().UTC()}
		err = s.keepMergeBases(ctx, Config{Access: Access{Shares: []virtiofs.Share{share}}})
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	records[share.Target] = was
	return s.saveWorkspaceRecords(records)
}

// SetWorkspaceAside puts the record of a copy-on-write share aside that the guest does not have any more.
func (s *Sandbox) SetWorkspaceAside(share virtiofs.Share) error {
	records, err := s.workspaceRecords()
	if err != nil {
		return err
	}
	records[aside(share)] = records[share.Target]
	delete(records, share.Target)
	base := s.mergeBase(share)
	if err := os.Rename(base, base+asideOf(share)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return s.saveWorkspaceRecords(records)
}

func (s *Sandbox) saveWorkspaceRecords(records map[string]*workspace.Record) error {
	return durable.WriteJSON(s.Files().Path(layout.WorkspaceFile), records)
}

// SaveWorkspaces keeps what is known of the changes in copy-on-write shares in the directory of a snapshot, whose guest is not
// saved yet: it knows nothing of what is applied and discarded from now on.
func (s *Sandbox) SaveWorkspaces(ctx context.Context, dir string) error {
	records, err := s.workspaceRecords()
	if err != nil {
		return err
	}
	if bases := s.Files().Path(layout.MergeBases); durable.Exists(bases) {
		if err := tree.Copy(ctx, bases, filepath.Join(dir, layout.MergeBases), func(string) {}); err != nil {
			return err
		}
	}
	return durable.WriteJSON(filepath.Join(dir, layout.WorkspaceFile), records)
}

// RestoreWorkspaces makes known what was when the snapshot in the directory was saved, whose guest the sandbox has again: what
// this machine has from later, that guest has not seen.
func (s *Sandbox) RestoreWorkspaces(ctx context.Context, dir string) error {
	records := make(map[string]*workspace.Record)
	err := durable.ReadJSON(filepath.Join(dir, layout.WorkspaceFile), &records)
	if errors.Is(err, os.ErrNotExist) { // an older snapshot
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading what was applied at the time of a snapshot: %w", err)
	}
	bases := s.Files().Path(layout.MergeBases)
	if saved := filepath.Join(dir, layout.MergeBases); durable.Exists(saved) {
		draft := s.Files().Path(durable.HiddenName(durable.DraftPrefix, layout.MergeBases))
		err = tree.Copy(ctx, saved, draft, func(string) {})
		if err == nil {
			err = durable.ReplaceDir(draft, bases)
		}
	} else {
		err = durable.RemoveDir(bases)
	}
	if err != nil {
		return err
	}
	return s.saveWorkspaceRecords(records)
}

// forgetWorkspaces is for a guest whose changes are gone.
func (s *Sandbox) forgetWorkspaces() error {
	err := os.Remove(s.Files().Path(layout.WorkspaceFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
