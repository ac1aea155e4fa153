package machine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/flock"
	"github.com/sourcery-zone/sandbox/machine/layout"
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

	restore  string // directory of the snapshot to start with; see Sandbox.Restore
	withHome bool   // also with its home
}

// GuestError is why a start failed whose processes all did what they should on
// the host: the guest itself powered off, or was not ready in time.
type GuestError struct{ message string }

func (e *GuestError) Error() string { return e.message }

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
// stage is reached. The supervisor outlives the caller unless o.Hold is set;
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
	request := startRequest{Dirs: s.host.Dirs, Name: s.Name, Hold: o.Hold, Restore: o.restore, WithHome: o.withHome}
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
	err = s.startSupervisor(request, lock, theirReports, theirHold)
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
	if st := s.State(); st.live() {
		return fmt.Errorf("the sandbox %s is %s already", s.Name, st.Status)
	}
	return fmt.Errorf("another command is already starting, changing or removing the sandbox %s: try again in a moment", s.Name)
}

// follow reads the supervisor's reports until the stage is reached.
func follow(ctx context.Context, reports *os.File, o StartOptions) error {
	stop := context.AfterFunc(ctx, func() { _ = reports.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	d := json.NewDecoder(reports)
	for {
		var r report
		err := d.Decode(&r)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, io.EOF):
			return errors.New("the supervisor ended without a word while the sandbox started")
		case err != nil:
			return fmt.Errorf("reading the supervisor's reports: %w", err)
		case r.Guest:
			return &GuestError{r.Error}
		case r.Error != "":
			return errors.New(r.Error)
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
	resp, err := s.call(ctx, http.MethodGet, "console?follow=true")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil // the sandbox has ended
	}
	return err
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
		return nil, s.notRunning(st)
	}
	conn, err := s.upgrade(ctx, "ssh", upgradeSSH)
	if err != nil {
		return nil, fmt.Errorf("opening a connection to the guest: %w", err)
	}
	return conn, nil
}

// upgrade asks the supervisor for a connection of another protocol. The caller
// closes it.
func (s *Sandbox) upgrade(ctx context.Context, path, protocol string) (*bufferedConn, error) {
	conn, err := s.dialAPI(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://sandbox/v1/"+path, nil)
	if err != nil {
		conn.Close()
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", protocol)
	r := bufio.NewReader(conn)
	resp, err := roundTrip(conn, r, req)
	switch {
	case err != nil:
	case resp.StatusCode == http.StatusNotFound:
		err = errors.New("its supervisor is of an older version: restart the sandbox")
	case resp.StatusCode != http.StatusSwitchingProtocols:
		err = answerError(resp)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &bufferedConn{Conn: conn, r: r}, nil
}

func (s *Sandbox) notRunning(st State) error {
	err := fmt.Errorf("the sandbox %s is %s", s.Name, st.Status)
	if st.Reason != "" {
		err = fmt.Errorf("%w (%s)", err, st.Reason)
	}
	switch st.Status {
	case StatusStarting, StatusStopping:
		return fmt.Errorf("%w: try again in a moment", err)
	case StatusPaused:
		return err
	case StatusBroken:
		if s.held() { // a newer program's, for instance
			return fmt.Errorf("%w: sandbox stop %s ends it in order", err, s.Name)
		}
		return fmt.Errorf("%w: its home is %s; sandbox rm %s removes it with the home", err, s.Files().Home(), s.Name)
	}
	return fmt.Errorf("%w: start it with sandbox start %s", err, s.Name)
}

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

// call makes one request to the supervisor. The caller closes the body.
func (s *Sandbox) call(ctx context.Context, method, path string) (*http.Response, error) {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return s.dialAPI(ctx) },
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://sandbox/v1/"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusNotFound {
		resp.Body.Close()
		return nil, errors.New("its supervisor is of an older version: restart the sandbox")
	}
	if resp.StatusCode >= 400 {
		defer resp.Body.Close()
		return nil, answerError(resp)
	}
	return resp, nil
}

// ask makes a request whose answer is the JSON of answer.
func (s *Sandbox) ask(ctx context.Context, method, path string, answer any) error {
	resp, err := s.call(ctx, method, path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return fmt.Errorf("reading the supervisor's answer: %w", err)
	}
	return nil
}

func answerError(resp *http.Response) error {
	const most = 4 << 10
	text, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil {
		return err
	}
	return errors.New(strings.TrimSpace(string(text)))
}
