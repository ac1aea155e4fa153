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
	if errors.Is(err, flock.ErrLocked) && s.State().Live() {
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
