package machine

import (
	"errors"
	"fmt"
	"os"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/flock"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

// Rename gives a sandbox that does not run another name, which is its host
// name from the next start on. The returned sandbox is the one to use from now
// on. A taken name is an error.
//
// The name of the directory is the name of the sandbox, so the rename is done
// in one step; what else knows the name follows, and no crash in between does
// harm.
func (s *Sandbox) Rename(name string) (*Sandbox, error) {
	if err := layout.CheckName(name); err != nil {
		return nil, err
	}
	renamed := &Sandbox{Name: name, host: s.host}
	c, err := s.Config()
	if err != nil {
		return nil, fmt.Errorf("the sandbox %s is broken and can only be removed: %w", s.Name, err)
	}
	c.Name = name
	if err := s.host.checkSocketPath(c); err != nil {
		return nil, err
	}
	lock, err := s.Files().Lock()
	switch {
	case errors.Is(err, flock.ErrLocked) && !s.State().Live():
		return nil, s.busy() // with another command
	case errors.Is(err, flock.ErrLocked):
		return nil, remedy.Add(fmt.Errorf("%w, and its guest and sockets know it by its name", s.liveError()), remedy.Stop, s.Name)
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("there is no sandbox named %s any more", s.Name)
	case err != nil:
		return nil, err
	}
	defer lock.Close()
	if name == s.Name {
		return s, nil
	}
	if err := durable.MoveDir(s.Files().Dir(), renamed.Files().Dir()); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil, remedy.Add(api.Errorf(api.CodeExist, "a sandbox named %s exists already", name), remedy.OtherName, name)
		}
		return nil, fmt.Errorf("renaming %s to %s: %w", s.Name, name, err)
	}
	return renamed, errors.Join(
		os.RemoveAll(s.Files().RuntimeDir()),
		durable.WriteJSON(renamed.Files().Path(layout.ConfigFile), c),
		layout.RecommentKey(renamed.Files().Key(layout.ClientKey), name),
		layout.RecommentKey(renamed.Files().Key(layout.HostKey), name),
	)
}
