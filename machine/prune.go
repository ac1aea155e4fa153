package machine

import (
	"context"
	"errors"
	"os"

	"github.com/sourcery-zone/sandbox/internal/flock"
	"github.com/sourcery-zone/sandbox/internal/tree"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

// Leftover is a sandbox that Prune removes.
type Leftover struct {
	Sandbox *Sandbox
	State   State
	Bytes   int64 // that its directory occupies
}

// Leftovers lists the sandboxes that ended, well or badly, or are broken. One
// that was never started is none: somebody is about to start it.
func (h *Host) Leftovers(ctx context.Context) ([]Leftover, error) {
	all, err := h.List()
	if err != nil {
		return nil, err
	}
	var left []Leftover
	for _, s := range all {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		st := s.State()
		if !st.over() || s.held() {
			continue
		}
		bytes, err := tree.Used(s.Files().Dir())
		if err != nil {
			return nil, err
		}
		left = append(left, Leftover{Sandbox: s, State: st, Bytes: bytes})
	}
	return left, nil
}

func (s State) over() bool {
	switch s.Status {
	case StatusStopped, StatusCrashed, StatusBroken:
		return true
	}
	return false
}

// Prune removes the sandbox with its home if it is still over, and tells
// whether it did: somebody may have started or removed it since.
func (l Leftover) Prune() (bool, error) {
	s := l.Sandbox
	// The lock is made where there is none, because a sandbox that is being
	// made at this moment has none yet, and must not be mistaken for rubbish.
	lock, err := flock.Try(s.Files().Path(layout.LockFile), true)
	if errors.Is(err, flock.ErrLocked) || errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer lock.Close()
	// With the lock in our hand, nothing is live: what says so was killed.
	if st := s.State(); !st.over() && !st.Live() {
		return false, nil
	}
	return true, s.Erase()
}
