package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/flock"
	"github.com/sourcery-zone/sandbox/internal/gpgagent"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/network/upstream"
)

// StartOptions say how a start is watched.
type StartOptions struct {
	Stage func(stage string) // called for each stage that is reached; may be nil
	Note  func(note string)  // called for what the user should know; may be nil
	// Until is the stage at which Start returns: StageAgent or StageSystem.
	Until string
	// Hold binds the sandbox to this process: when it ends, or the returned
	// Hold is closed, the sandbox is stopped abruptly.
	Hold bool
	// Secrets are the sandbox's. They are got if it is nil, which may run commands of the user's.
	Secrets Secrets

	restore  string // directory of the snapshot to start with; see Sandbox.Restore
	withHome bool   // also with its home
}

// Hold keeps a sandbox alive that was started with StartOptions.Hold.
type Hold struct{ w io.WriteCloser }

// Close stops the sandbox abruptly, unless it was released.
func (h *Hold) Close() error { return h.w.Close() }

// Release lets the sandbox live on without its starter.
func (h *Hold) Release() error {
	_, err := h.w.Write([]byte{'\n'}) // anything: only that it comes counts
	return errors.Join(err, h.w.Close())
}

// Start runs the sandbox under a supervisor of its own, and returns when the
// stage is reached. Where the guest itself failed and all on the host did what it
// should, the error is an api.ErrGuest. The supervisor outlives the caller unless o.Hold is set;
// then the caller closes the returned Hold, which is nil otherwise.
func (s *Sandbox) Start(ctx context.Context, o StartOptions) (*Hold, error) {
	lock, err := s.Files().Lock()
	switch {
	case errors.Is(err, flock.ErrLocked):
		return nil, s.busy()
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("the sandbox %s was removed meanwhile", s.Name)
	case err != nil:
		return nil, err
	}
	defer lock.Close()
	reports, theirReports, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer reports.Close()
	defer theirReports.Close()
	request := api.StartRequest{Dirs: s.host.Dirs, Name: s.Name, Hold: o.Hold, Restore: o.restore, WithHome: o.withHome}
	var secrets []*os.File
	if c, err := s.Config(); err == nil { // else the supervisor says why
		if c.Network.Judged() {
			request.Upstream = upstream.FromEnvironment(os.Getenv)
		}
		if o.Secrets == nil {
			if o.Secrets, err = s.host.Secrets(ctx, c); err != nil {
				return nil, err
			}
		}
		if request.Secrets, secrets, err = s.openSecrets(c, o.Secrets); err != nil {
			return nil, err
		}
		defer closeAll(secrets)
		if len(c.GPGAgentKeys) > 0 {
			if request.GPGAgent, err = gpgagent.FindSocket(ctx); err != nil && o.Note != nil {
				o.Note(fmt.Sprintf("the guest cannot sign with the keys that it may: %v", err))
			}
		}
		if len(c.SSHAgentKeys) > 0 {
			if request.SSHAgent, err = findSSHAgent(ctx); err != nil && o.Note != nil {
				o.Note(fmt.Sprintf("the guest cannot use the keys that it may: %v", err))
			}
		}
	}
	if request.Restore == "" {
		request.Restore = s.firstState()
	}
	var hold *Hold
	var theirHold *os.File
	if o.Hold {
		theirs, ours, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		defer theirs.Close()
		hold, theirHold = &Hold{ours}, theirs
	}
	err = s.startSupervisor(request, lock, theirReports, theirHold, secrets)
	theirReports.Close() // so that theirs is the only one
	// From here on the lock is the supervisor's alone: it must be free when that
	// dies, even if this process is stopped.
	lock.Close()
	if err == nil {
		err = follow(ctx, reports, o)
	}
	if err != nil && hold != nil {
		hold.Close()
		hold = nil
	}
	if err != nil {
		// The supervisor ends right after its last word. Whoever tries again at once should not find the lock still
		// taken.
		_ = s.Wait(ctx)
	}
	return hold, err
}

// busy is why a sandbox whose lock is held cannot be started.
func (s *Sandbox) busy() error {
	if st := s.State(); st.Live() {
		return api.Errorf(api.CodeBusy, "the sandbox %s is %s already", s.Name, st.Status)
	}
	return api.Errorf(api.CodeBusy, "another command is already starting, changing or removing the sandbox %s: try again in a moment", s.Name)
}

// follow reads the supervisor's reports until the stage is reached.
func follow(ctx context.Context, reports *os.File, o StartOptions) error {
	stop := context.AfterFunc(ctx, func() { _ = reports.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	d := json.NewDecoder(reports)
	for {
		var r api.Report
		err := d.Decode(&r)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, io.EOF):
			return errors.New("the supervisor ended without a word while the sandbox started")
		case err != nil:
			return fmt.Errorf("reading the supervisor's reports: %w", err)
		case r.Error != nil:
			return r.Error
		case r.Note != "" && o.Note != nil:
			o.Note(r.Note)
		case r.Stage != "" && o.Stage != nil:
			o.Stage(r.Stage)
		}
		if r.Stage != "" && r.Stage == o.Until {
			return nil
		}
	}
}

// Wait returns when the sandbox does not run, or is gone.
func (s *Sandbox) Wait(ctx context.Context) error {
	got := make(chan error, 1)
	go func() {
		f, err := os.OpenFile(s.Files().Path(layout.LockFile), os.O_RDWR, 0)
		if err == nil {
			err = flock.AwaitRelease(f) // closed before anybody is told
		}
		got <- err
	}()
	select {
	case err := <-got:
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Console copies the console's log to w; with follow it goes on until the
// sandbox ends or ctx does.
func (s *Sandbox) Console(ctx context.Context, w io.Writer, follow bool) error {
	if !follow || !s.held() {
		f, err := os.Open(s.Files().Log(layout.ConsoleLog))
		if errors.Is(err, os.ErrNotExist) {
			return nil // never started
		}
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, f)
		return err
	}
	return s.api().Console(ctx, w)
}

// Dial connects to the guest's agent through the supervisor. The caller closes
// the client.
func (s *Sandbox) Dial(ctx context.Context) (*agent.Client, error) {
	conn, err := s.DialSSH(ctx)
	if err != nil {
		return nil, err
	}
	key, err := layout.ReadKey(s.Files().Key(layout.ClientKey))
	if err != nil {
		conn.Close()
		return nil, err
	}
	return agent.Connect(ctx, conn, key)
}

// DialSSH returns a connection on which the guest's agent speaks SSH and asks
// for no authentication. The caller closes it.
func (s *Sandbox) DialSSH(ctx context.Context) (net.Conn, error) {
	if st := s.State(); st.Status != StatusRunning {
		return nil, s.NotRunning(st)
	}
	conn, err := s.api().SSH(ctx)
	if err != nil {
		return nil, fmt.Errorf("opening a connection to the guest: %w", err)
	}
	return conn, nil
}

// NotRunning is why no command can run in a sandbox with that state, and what to do.
func (s *Sandbox) NotRunning(st State) error {
	text := fmt.Sprintf("the sandbox %s is %s", s.Name, st.Status)
	if st.Reason != "" {
		text += fmt.Sprintf(" (%s)", st.Reason)
	}
	var do remedy.Action
	switch {
	case st.Status == StatusStarting || st.Status == StatusStopping:
		text += ": try again in a moment"
	case st.Status == StatusPaused:
	case st.Status == StatusBroken && s.held(): // a newer program's, for instance
		do = remedy.End
	case st.Status == StatusBroken:
		text += ": its home is " + s.Files().Home()
		do = remedy.Remove
	default:
		do = remedy.Start
	}
	err := api.Errorf(api.CodeNotRunning, "%s", text)
	if do == "" {
		return err
	}
	return remedy.Add(err, do, s.Name)
}

// api returns a client of the supervisor's API, which needs no closing.
func (s *Sandbox) api() *api.Client { return &api.Client{Dial: s.dialAPI} }

func (s *Sandbox) dialAPI(ctx context.Context) (net.Conn, error) {
	if err := s.checkAPI(); err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", s.Files().API())
	if err != nil {
		return nil, fmt.Errorf("the supervisor of %s does not answer: %w", s.Name, err)
	}
	return conn, nil
}

// ConsoleInput makes the caller the writer of the sandbox's console: what is
// written to the connection reaches whoever reads /dev/hvc0 in the guest. A
// read from it returns io.EOF when the sandbox has ended or another took the
// console. While somebody else writes it is api.ErrConsoleTaken, unless take is
// set: then the other one loses it. The caller closes the connection.
func (s *Sandbox) ConsoleInput(ctx context.Context, take bool) (net.Conn, error) {
	if !s.held() {
		return nil, s.NotRunning(s.State())
	}
	conn, err := s.api().ConsoleInput(ctx, api.ConsoleInputRequest{Take: take})
	if err != nil {
		return nil, fmt.Errorf("opening the console of %s: %w", s.Name, err)
	}
	return conn, nil
}
