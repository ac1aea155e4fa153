package supervisor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
)

// errTransition is for a second change while one is under way.
var errTransition = api.Errorf(api.CodeBusy, "it is being paused, resumed, saved, resized or given other shares already: try again in a moment")

func (v *supervisor) pause(ctx context.Context) error {
	if !v.transition.TryLock() {
		return errTransition
	}
	defer v.transition.Unlock()
	if st := v.currentState(); st.Status != machine.StatusRunning {
		return v.s.NotRunning(st)
	}
	if err := v.stopCPUs(ctx); err != nil {
		return err
	}
	return v.showPaused("it was paused: sandbox resume " + v.s.Name + " lets it go on")
}

// showPaused notes that the guest stands still until somebody resumes it.
func (v *supervisor) showPaused(reason string) error {
	v.paused.Store(true)
	v.log.Info("the guest stands still", "reason", reason)
	return v.setState(func(st *machine.State) {
		if st.Status == machine.StatusRunning {
			st.Status, st.Reason = machine.StatusPaused, reason
		}
	})
}

func (v *supervisor) resume(ctx context.Context) error {
	if !v.transition.TryLock() {
		return errTransition
	}
	defer v.transition.Unlock()
	if !v.paused.Load() {
		st := v.currentState()
		if st.Status == machine.StatusRunning {
			return fmt.Errorf("the sandbox %s is not paused", v.s.Name)
		}
		return v.s.NotRunning(st)
	}
	if err := v.unpause(ctx); err != nil {
		return err
	}
	return errors.Join(v.resync(ctx, agent.ResumeConfig{}), v.setState(func(st *machine.State) {
		if st.Status == machine.StatusPaused {
			st.Status, st.Reason = machine.StatusRunning, ""
		}
	}))
}

func (v *supervisor) unpause(ctx context.Context) error {
	if err := v.contCPUs(ctx); err != nil {
		return err
	}
	v.paused.Store(false)
	v.log.Info("resumed")
	return nil
}

// stopCPUs stops the guest's processors, without its silence being taken for its
// death.
func (v *supervisor) stopCPUs(ctx context.Context) error {
	v.agentClient().SetPaused(true)
	if err := v.monitor.Stop(ctx); err != nil {
		v.agentClient().SetPaused(false)
		return err
	}
	return nil
}

// contCPUs takes back what stopCPUs did.
func (v *supervisor) contCPUs(ctx context.Context) error {
	if err := v.monitor.Cont(ctx); err != nil {
		return fmt.Errorf("the guest cannot go on: %w", err)
	}
	v.agentClient().SetPaused(false)
	return nil
}

// resyncTimeout is for a guest that goes on to take its time.
const resyncTimeout = 30 * time.Second

// resync tells a guest that goes on what else has changed, and gives it the
// present time and fresh entropy.
func (v *supervisor) resync(ctx context.Context, changed agent.ResumeConfig) error {
	ctx, cancel := context.WithTimeout(ctx, resyncTimeout)
	defer cancel()
	if err := v.syncClock(ctx); err != nil {
		return err
	}
	changed.Entropy, changed.Certificates, changed.Disconnected = newEntropy(), v.certificates, v.disconnected.Swap(false)
	return v.agentClient().Resume(ctx, changed)
}

// newEntropy is a seed for a guest's random number generator.
func newEntropy() []byte {
	entropy := make([]byte, 64)
	_, _ = rand.Read(entropy) // never fails (getrandom(2))
	return entropy
}
