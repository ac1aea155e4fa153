package workspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/hostdir"
)

// Changes returns what the guest has otherwise than the host, in an order in which it can be applied.
func (s *Share) Changes(ctx context.Context) ([]Change, error) {
	c := &comparison{share: s, ctx: ctx, listed: make(map[string]map[string]bool)}
	defer c.close()
	s.moved = nil
	var entries []agent.WorkspaceEntry
	err := s.Guest.List(ctx, func(e agent.WorkspaceEntry) error {
		entries = append(entries, e)
		if in := c.listed[path.Dir(e.Path)]; in != nil {
			in[path.Base(e.Path)] = true
		}
		if e.Whole {
			c.listed[e.Path] = make(map[string]bool)
		}
		if e.Moved && (len(s.moved) == 0 || !within(e.Path, s.moved[len(s.moved)-1])) {
			s.moved = append(s.moved, e.Path)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("asking the guest what it has changed: %w", err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		if err := c.entry(e); err != nil {
			return nil, err
		}
	}
	// What is removed comes last, so that what was moved is in its new place before, but for what is in the way.
	slices.SortStableFunc(c.changes, func(a, b Change) int { return last(a) - last(b) })
	return c.changes, nil
}

func last(c Change) int {
	if c.Kind == Removed && !c.replaced {
		return 1
	}
	return 0
}

// comparePaths orders paths so that a directory comes right before what is in it.
func comparePaths(a, b string) int {
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
}

func within(name, dir string) bool {
	return len(name) > len(dir) && name[:len(dir)] == dir && name[len(dir)] == '/'
}

// comparison is one walk through the guest's list.
type comparison struct {
	share   *Share
	ctx     context.Context
	listed  map[string]map[string]bool // the names that the guest lists in directories that are whole
	changes []Change

	replacing bool // what is removed makes room

	in     string // the directory of parent
	parent *hostdir.Dir
}

// lstat is as the function of that name. What is asked about one after the other is mostly in one directory.
func (c *comparison) lstat(name string) (*node, error) {
	if in := path.Dir(name); c.parent == nil || c.in != in {
		parent, err := c.share.Host.Beneath(in)
		if absent(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		c.close()
		c.in, c.parent = in, parent
	}
	return lstatAt(c.parent, path.Base(name))
}

func (c *comparison) close() {
	if c.parent != nil {
		c.parent.Close()
	}
}

// add adds a change, unless it is one that was decided about before.
func (c *comparison) add(change Change) error {
	decided, err := c.share.settled(c.ctx, change)
	if err != nil || decided {
		return err
	}
	if change.host != nil && !change.host.side.Mode.IsDir() && c.share.changedSince(change.Path, change.host) {
		change.Conflict = "it has changed on this machine since the sandbox began with it"
	}
	c.changes = append(c.changes, change)
	if len(c.changes) > agent.MaxWorkspaceEntries {
		return fmt.Errorf("there are more than %d changes", agent.MaxWorkspaceEntries)
	}
	return nil
}

func (c *comparison) entry(e agent.WorkspaceEntry) error {
	host, err := c.lstat(e.Path)
	if err != nil {
		return err
	}
	if e.Removed {
		if host == nil {
			return nil
		}
		return c.removed(e.Path, host, false)
	}
	change := Change{Path: e.Path, Kind: Added, New: Side{e.Mode, e.Size, e.Link}}
	isDir := e.Mode.IsDir()
	switch {
	case host == nil:
		if isDir && c.share.Mounted[e.Path] {
			return nil
		}
		return c.add(change)
	case host.side.Mode.IsDir() != isDir:
		c.replacing = true
		err := c.removed(e.Path, host, false)
		c.replacing = false
		if err != nil {
			return err
		}
		return c.add(change)
	}
	change.Kind, change.Old, change.host = Modified, host.side, host
	same, err := c.same(e, host)
	if err != nil {
		return err
	}
	change.ModeOnly = same
	if !same || host.side.Mode.Type() != fs.ModeSymlink && host.side.Mode.Perm() != e.Mode.Perm() {
		if err := c.add(change); err != nil {
			return err
		}
	}
	if !e.Whole {
		return nil
	}
	// What the guest does not list in it is gone, if it was there when the guest replaced the directory.
	all, err := names(c.share.Host, e.Path)
	if err != nil {
		return err
	}
	for _, base := range all {
		if c.listed[e.Path][base] {
			continue
		}
		name := path.Join(e.Path, base)
		host, err := lstat(c.share.Host, name)
		if err == nil && host != nil {
			err = c.removed(name, host, true)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// same tells whether both have the same but for the permissions.
func (c *comparison) same(e agent.WorkspaceEntry, host *node) (bool, error) {
	switch {
	case e.Mode.Type() != host.side.Mode.Type():
		return false, nil
	case e.Mode.Type() == fs.ModeSymlink:
		return e.Link == host.side.Link, nil
	case !e.Mode.IsRegular():
		return true, nil
	case e.Size != host.side.Size:
		return false, nil
	}
	theirs, err := c.share.Guest.Sum(c.ctx, e.Path)
	if _, gone := errors.AsType[*agent.WorkspaceError](err); gone { // it is changing at this moment
		return false, nil
	}
	if err != nil {
		return false, err
	}
	f, _, err := open(c.share.Host, e.Path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	ours, err := sumOf(f)
	return ours == theirs, err
}

// removed adds that something is gone, after all that is in it. What is only implied, as of a directory that the guest
// has replaced, is of no account where the host has made it since.
func (c *comparison) removed(name string, host *node, implied bool) error {
	if err := c.ctx.Err(); err != nil {
		return context.Cause(c.ctx)
	}
	if host.side.Mode.IsDir() {
		all, err := names(c.share.Host, name)
		if err != nil {
			return err
		}
		for _, base := range all {
			child := path.Join(name, base)
			in, err := lstat(c.share.Host, child)
			if err == nil && in != nil {
				err = c.removed(child, in, implied)
			}
			if err != nil {
				return err
			}
		}
	} else if implied && c.share.changedSince(name, host) {
		return nil
	}
	return c.add(Change{Path: name, Kind: Removed, Old: host.side, host: host, replaced: c.replacing})
}
