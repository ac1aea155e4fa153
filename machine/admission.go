package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/flock"
	"github.com/sourcery-zone/sandbox/internal/hostdir"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// A share is a directory that the user has named once. What it was then is kept
// in the configuration, and compared with what is there at each start: a guest
// to which a directory above it is shared, too, can put something else there.

// ShareRules is what no guest may have of this machine.
func (h *Host) ShareRules() virtiofs.CheckOptions {
	home, _ := os.UserHomeDir() // without one in the environment, it is one of passwd's
	return virtiofs.CheckOptions{Home: home, Private: []string{h.Dirs.Data, h.Dirs.State, h.Dirs.Runtime, h.Dirs.Cache}}
}

// SharedDirs are the directories of this machine that a guest can write to, each with
// the name of its sandbox.
func (h *Host) SharedDirs() (map[string]string, error) {
	all, err := h.List()
	if err != nil {
		return nil, err
	}
	shared := map[string]string{}
	for _, s := range all {
		c, err := s.Config()
		if err != nil {
			continue // broken: it shares nothing any more that we could know of
		}
		shared[s.Files().Home()] = s.Name
		for _, share := range c.Shares {
			if !share.ReadOnly {
				shared[share.Source] = s.Name
			}
		}
	}
	return shared, nil
}

// SharedDirectories are the shares that are no single files, in their order.
func SharedDirectories(shares []virtiofs.Share) []virtiofs.Share {
	return slices.DeleteFunc(slices.Clone(shares), func(s virtiofs.Share) bool { return s.File })
}

// ProjectShares are the shared directories in which somebody works, in their order.
func (c Config) ProjectShares() []virtiofs.Share {
	return slices.DeleteFunc(SharedDirectories(c.Shares), func(s virtiofs.Share) bool { return c.AgentSessions != "" && s.Source == c.AgentSessions })
}

// checkShares looks at all shares as they are now.
func (h *Host) checkShares(c Config) error {
	var errs []error
	for _, s := range c.Shares {
		dir, err := h.OpenShare(c.Name, s)
		if err == nil {
			err = dir.Close()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// OpenShare opens a share of the sandbox of that name, if it is still what it
// was.
func (h *Host) OpenShare(name string, s virtiofs.Share) (*hostdir.Dir, error) {
	dir, err := s.Open(h.ShareRules())
	if _, missing := errors.AsType[*virtiofs.MissingError](err); missing && !s.CopyOnWrite {
		return nil, remedy.Add(err, remedy.DropShare, name, s.Target)
	}
	return dir, ExplainShare(name, err)
}

// ExplainShare adds to the refusal of a share how to accept it.
func ExplainShare(name string, err error) error {
	if changed, ok := errors.AsType[*virtiofs.ChangedError](err); ok {
		return remedy.Add(err, remedy.AcceptShare, name, changed.Source)
	}
	if danger, ok := errors.AsType[*virtiofs.DangerError](err); ok {
		return remedy.Add(err, remedy.AcceptDangerous, name, danger.Source)
	}
	return err
}

// RecordShares notes what the shares are of which nothing is known: those of a
// sandbox that an older version has made, or a program that did not admit them.
// They are judged as new ones. It returns the configuration as it is then. The
// caller holds the lock.
func (s *Sandbox) RecordShares(c Config) (Config, error) {
	shares := slices.Clone(c.Shares)
	recorded := false
	for i, share := range shares {
		if !share.Directory.IsZero() {
			continue
		}
		admitted, err := share.Admit(s.host.ShareRules())
		if err != nil {
			return c, ExplainShare(s.Name, err)
		}
		shares[i], recorded = admitted, true
	}
	if !recorded {
		return c, nil
	}
	c.Shares = shares
	return c, durable.WriteJSON(s.Files().Path(layout.ConfigFile), c)
}

// AcceptShares makes what is at the paths now the sandbox's shares that were
// there, once it is judged as new ones are. It counts from the next start on. The
// shares are returned as they are then: a symbolic link at a path is resolved.
func (s *Sandbox) AcceptShares(paths []string, allowDangerous bool) ([]virtiofs.Share, error) {
	lock, err := s.Files().Lock()
	switch {
	case errors.Is(err, flock.ErrLocked) && s.State().Live():
		// Its supervisor has read the configuration already.
	case errors.Is(err, flock.ErrLocked):
		return nil, s.busy()
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("there is no sandbox named %s any more", s.Name)
	case err != nil:
		return nil, err
	default:
		defer lock.Close()
	}
	c, err := s.Config()
	if err != nil {
		return nil, fmt.Errorf("the sandbox %s is broken and can only be removed: %w", s.Name, err)
	}
	rules := s.host.ShareRules()
	rules.AllowDangerous = allowDangerous
	accepted, err := c.accept(paths, rules)
	if err != nil {
		return nil, err
	}
	return accepted, durable.WriteJSON(s.Files().Path(layout.ConfigFile), c)
}

// accept admits the shares at the paths anew.
func (c *Config) accept(paths []string, rules virtiofs.CheckOptions) ([]virtiofs.Share, error) {
	c.Shares = slices.Clone(c.Shares)
	var accepted []virtiofs.Share
	var errs []error
	for _, path := range paths {
		path, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(c.Shares, func(s virtiofs.Share) bool { return s.Source == path })
		resolved, resolveErr := hostdir.Resolve(path)
		if i < 0 && resolveErr == nil { // named by a link, as it may have been when it was shared
			i = slices.IndexFunc(c.Shares, func(s virtiofs.Share) bool { return s.Source == resolved })
		}
		if i < 0 {
			errs = append(errs, remedy.Add(fmt.Errorf("the sandbox %s has no share of %s", c.Name, path), remedy.Inspect, c.Name))
			continue
		}
		share := c.Shares[i]
		if resolveErr == nil {
			share.Source = resolved
		}
		share, err = share.Admit(rules)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c.Shares[i] = share
		accepted = append(accepted, share)
	}
	return accepted, errors.Join(errs...)
}
