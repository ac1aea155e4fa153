package machine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/machine/api"
)

// Pause lets the sandbox stand still: its processors stop, its memory stays.
func (s *Sandbox) Pause(ctx context.Context) error {
	if err := s.checkStarted(); err != nil {
		return err
	}
	return s.api().Pause(ctx)
}

// Resume lets a paused sandbox go on, with the right time.
func (s *Sandbox) Resume(ctx context.Context) error {
	if err := s.checkStarted(); err != nil {
		return err
	}
	return s.api().Resume(ctx)
}

// checkStarted returns nil if the sandbox has a guest that runs or is paused.
func (s *Sandbox) checkStarted() error {
	if st := s.State(); st.Status != StatusRunning && st.Status != StatusPaused {
		return s.notRunning(st)
	}
	return nil
}

// errStanding is for a second change while one is under way.
var errStanding = api.Errorf(api.CodeBusy, "it is being paused, resumed, saved or resized already: try again in a moment")

func (v *supervisor) pause(ctx context.Context) error {
	if !v.standing.TryLock() {
		return errStanding
	}
	defer v.standing.Unlock()
	if st := v.currentState(); st.Status != StatusRunning {
		return v.s.notRunning(st)
	}
	if err := v.halt(ctx); err != nil {
		return err
	}
	return v.showPaused("it was paused: sandbox resume " + v.s.Name + " lets it go on")
}

// showPaused notes that the guest stands still until somebody resumes it.
func (v *supervisor) showPaused(reason string) error {
	v.paused.Store(true)
	v.log.Info("the guest stands still", "reason", reason)
	return v.setState(func(st *State) {
		if st.Status == StatusRunning {
			st.Status, st.Reason = StatusPaused, reason
		}
	})
}

func (v *supervisor) resume(ctx context.Context) error {
	if !v.standing.TryLock() {
		return errStanding
	}
	defer v.standing.Unlock()
	if !v.paused.Load() {
		st := v.currentState()
		if st.Status == StatusRunning {
			return fmt.Errorf("the sandbox %s is not paused", v.s.Name)
		}
		return v.s.notRunning(st)
	}
	if err := v.unpause(ctx); err != nil {
		return err
	}
	return errors.Join(v.setRight(ctx, agent.ResumeConfig{}), v.setState(func(st *State) {
		if st.Status == StatusPaused {
			st.Status, st.Reason = StatusRunning, ""
		}
	}))
}

func (v *supervisor) unpause(ctx context.Context) error {
	if err := v.goOn(ctx); err != nil {
		return err
	}
	v.paused.Store(false)
	v.log.Info("resumed")
	return nil
}

// halt stops the guest's processors, without its silence being taken for its
// death.
func (v *supervisor) halt(ctx context.Context) error {
	v.agentClient().SetPaused(true)
	if err := v.monitor.Stop(ctx); err != nil {
		v.agentClient().SetPaused(false)
		return err
	}
	return nil
}

// goOn takes back what halt did.
func (v *supervisor) goOn(ctx context.Context) error {
	if err := v.monitor.Cont(ctx); err != nil {
		return fmt.Errorf("the guest cannot go on: %w", err)
	}
	v.agentClient().SetPaused(false)
	return nil
}

// setRightTimeout is for a guest that goes on to take its time.
const setRightTimeout = 30 * time.Second

// setRight tells a guest that goes on what else has changed, and gives it the
// present time and fresh entropy.
func (v *supervisor) setRight(ctx context.Context, changed agent.ResumeConfig) error {
	ctx, cancel := context.WithTimeout(ctx, setRightTimeout)
	defer cancel()
	if err := v.syncClock(ctx); err != nil {
		return err
	}
	changed.Entropy = newEntropy()
	return v.agentClient().Resume(ctx, changed)
}

// newEntropy is a seed for a guest's random number generator.
func newEntropy() []byte {
	entropy := make([]byte, 64)
	_, _ = rand.Read(entropy) // never fails (getrandom(2))
	return entropy
}
