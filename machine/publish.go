package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/flock"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/network"
)

// Publish opens ports of the host that lead to the guest, at once if the sandbox runs,
// and at each later start. It returns them, of a sandbox that runs with the ports that
// were chosen. All are opened or none.
func (s *Sandbox) Publish(ctx context.Context, forwards []network.Forward) ([]network.Forward, error) {
	var opened api.Ports
	err := s.changeConfig(
		func(c Config) (Config, error) { return c.Publishing(forwards) },
		func() (err error) {
			opened, err = s.api().Publish(ctx, api.Ports{Forwards: forwards})
			return err
		},
	)
	if err != nil || opened.Forwards != nil {
		return opened.Forwards, err
	}
	return forwards, nil
}

// Unpublish closes ports that Publish has returned, or that are in the sandbox's
// configuration, and ends the connections to them.
func (s *Sandbox) Unpublish(ctx context.Context, forwards []network.Forward) error {
	return s.changeConfig(
		func(c Config) (Config, error) {
			for _, f := range forwards {
				i := slices.Index(c.Forwards, f)
				if i < 0 {
					return c, s.NotPublished(f)
				}
				c.Forwards = slices.Delete(slices.Clone(c.Forwards), i, i+1)
			}
			return c, nil
		},
		func() error { return s.api().Unpublish(ctx, api.Ports{Forwards: forwards}) },
	)
}

// AutoPublish changes whether a port of the host leads to each TCP port on which the
// guest's programs listen: see [GuestPort].
func (s *Sandbox) AutoPublish(ctx context.Context, on bool) error {
	return s.changeConfig(
		func(c Config) (Config, error) {
			c.AutoPublish = on
			return c, c.Validate()
		},
		func() error { return s.api().AutoPublish(ctx, api.AutoPorts{On: on}) },
	)
}

// changeConfig changes the configuration of a sandbox that does not run, and has the
// supervisor of one that does make the change.
func (s *Sandbox) changeConfig(change func(Config) (Config, error), ask func() error) error {
	lock, err := s.Files().Lock()
	switch {
	case errors.Is(err, flock.ErrLocked):
		if st := s.State(); !st.Live() {
			return s.busy() // with another command
		}
		return ask()
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("there is no sandbox named %s any more", s.Name)
	case err != nil:
		return err
	}
	defer lock.Close()
	c, err := s.Config()
	if err != nil {
		return fmt.Errorf("the sandbox %s is broken and can only be removed: %w", s.Name, err)
	}
	if c, err = change(c); err != nil {
		return err
	}
	return durable.WriteJSON(s.Files().Path(layout.ConfigFile), c)
}

// Publishing is the configuration with more ports, if it can have them.
func (c Config) Publishing(forwards []network.Forward) (Config, error) {
	c.Forwards = slices.Concat(c.Forwards, forwards)
	return c, c.Validate()
}

// NotPublished says that a port cannot be closed.
func (s *Sandbox) NotPublished(f network.Forward) error {
	return remedy.Add(fmt.Errorf("the sandbox %s has not published %s", s.Name, f), remedy.ListPorts, s.Name)
}
