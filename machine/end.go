package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/flock"
	"github.com/sourcery-zone/sandbox/internal/process"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

// endPatience is how long a supervisor may take for an end beyond the guest's own
// time: what it allows itself, and some more.
const endPatience = api.QuitTimeout + api.TeardownTimeout + 5*time.Second

// errNoEnd says that a supervisor took the request and did not fulfil it.
var errNoEnd = errors.New("its supervisor does not end it")

// introduction is how long a new supervisor may take to say who it is. It does
// so first of all, and a busy machine may let it wait.
const introduction = time.Minute

// errNoIdentity says that nobody has said who holds the lock.
var errNoIdentity = errors.New("its supervisor is not known")

// Stop powers the sandbox down, ends it by force after grace, and returns when
// it has ended. Stopping a sandbox that does not run is no error.
func (s *Sandbox) Stop(ctx context.Context, grace time.Duration) error {
	return s.end(ctx, func(ctx context.Context) error { return s.api().Stop(ctx, api.StopRequest{Grace: grace}) }, grace)
}

// Kill ends the sandbox without powering it down.
func (s *Sandbox) Kill(ctx context.Context) error {
	return s.end(ctx, func(ctx context.Context) error { return s.api().Kill(ctx, api.KillRequest{}) }, 0)
}

// end asks the supervisor over its API, and ends the supervisor itself when
// that does not help: its socket may be gone (a logout empties
// XDG_RUNTIME_DIR), its API another version's, its process stopped.
func (s *Sandbox) end(ctx context.Context, call func(context.Context) error, grace time.Duration) error {
	if !s.held() {
		return nil
	}
	limited, cancel := context.WithTimeoutCause(ctx, grace+endPatience, errNoEnd)
	defer cancel()
	s.awaitSupervisor(limited)
	err := s.askForEnd(limited, call)
	if err == nil || !s.held() { // it may have ended by itself meanwhile
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if limited.Err() != nil {
		grace = 0 // it had its time
	}
	return s.endBySignal(ctx, grace, err)
}

// awaitSupervisor waits while a start holds the lock whose supervisor has not
// yet said who it is: for that moment it can neither be asked nor signalled.
// It looks again and again, as the moment is short, and gives up after
// introduction.
func (s *Sandbox) awaitSupervisor(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, introduction)
	defer cancel()
	again := time.NewTicker(introduction / 3000)
	defer again.Stop()
	for s.held() {
		p, err := s.openSupervisor()
		if err == nil {
			p.Close()
			return
		}
		if !errors.Is(err, errNoIdentity) && !errors.Is(err, process.ErrGone) {
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Sandbox) askForEnd(ctx context.Context, call func(context.Context) error) error {
	if err := call(ctx); err != nil {
		return err
	}
	return s.Wait(ctx)
}

// endBySignal ends the supervisor, with it everything that it owns, and writes
// the state that it could not write. why is what was tried before.
func (s *Sandbox) endBySignal(ctx context.Context, grace time.Duration, why error) error {
	p, err := s.openSupervisor()
	if errors.Is(err, process.ErrGone) && !s.held() {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w; it cannot be ended by a signal either: %w", why, err)
	}
	defer p.Close()
	if grace > 0 {
		if err := p.Signal(unix.SIGTERM); err != nil { // the supervisor powers the guest down
			return err
		}
		p.Wait(ctx, grace+endPatience)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		return err
	}
	if !p.Wait(ctx, endPatience) {
		return fmt.Errorf("%w; process %d did not take the signal SIGKILL: the kernel keeps it, perhaps in a file system that does not answer", why, p.ID.PID)
	}
	return s.settle("it was killed, because " + why.Error())
}

// openSupervisor proves who holds the lock. It reads only what it needs of the
// state file, as that may be a newer version's.
func (s *Sandbox) openSupervisor() (*process.Handle, error) {
	data, err := os.ReadFile(s.Files().Path(layout.StateFile))
	if err != nil {
		return nil, err
	}
	var st struct {
		Identity *process.Identity `json:"identity"`
	}
	if err := json.Unmarshal(data, &st); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", s.Files().Path(layout.StateFile), err)
	}
	if st.Identity == nil {
		return nil, fmt.Errorf("%w: %w", errNoIdentity, s.busy())
	}
	p, err := process.Open(*st.Identity)
	if err != nil {
		return nil, fmt.Errorf("its supervisor (process %d): %w", st.Identity.PID, err)
	}
	return p, nil
}

// settle does what a supervisor does last, in place of one that was killed.
// If the sandbox has a new owner already, that one does it.
func (s *Sandbox) settle(reason string) error {
	lock, err := s.Files().Lock()
	if errors.Is(err, flock.ErrLocked) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	if c, err := s.Config(); err == nil && c.Remove {
		return s.Erase()
	}
	var st State
	if err := durable.ReadJSON(s.Files().Path(layout.StateFile), &st); err != nil {
		return nil // it shows as broken, which is the truth
	}
	if st.Live() {
		st.Status, st.Reason, st.Ended = StatusStopped, reason, time.Now()
	}
	st.Supervisor, st.Identity, st.QEMU = 0, nil, 0
	return errors.Join(os.RemoveAll(s.Files().RuntimeDir()), durable.WriteJSON(s.Files().Path(layout.StateFile), st))
}

// checkAPI finds a supervisor that a program of another version started, and
// that would misunderstand this one.
func (s *Sandbox) checkAPI() error {
	st := s.State()
	if st.API == 0 || st.API == api.Version { // 0: its state says nothing, so let it answer
		return nil
	}
	return remedy.Add(fmt.Errorf("the sandbox %s was started by another version of sandbox (it speaks version %d of the supervisor's API, this program version %d)", s.Name, st.API, api.Version), remedy.StopOther, s.Name)
}
