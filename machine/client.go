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
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/flock"
)

// SuperviseCommand is the argument with which Start runs our own executable
// again; the executable must then call Supervise.
const SuperviseCommand = "supervise"

// HoldFlag follows SuperviseCommand when the sandbox lives only as long as its
// starter.
const HoldFlag = "--hold"

// RestoreFlag, followed by a snapshot's directory, comes before the name of a
// sandbox that starts with it.
const RestoreFlag = "--restore"

// WithHomeFlag follows RestoreFlag when the snapshot's home is restored, too.
const WithHomeFlag = "--with-home"

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
	lock, err := s.lock()
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
	args := []string{SuperviseCommand}
	files := []*os.File{lock, theirReports} // fdLock, fdReport
	var hold *Hold
	if o.Hold {
		theirs, ours, err := os.Pipe()
		if err != nil {
			return nil, errors.Join(err, theirReports.Close())
		}
		hold = &Hold{ours}
		args, files = append(args, HoldFlag), append(files, theirs)
	}
	if o.restore == "" {
		o.restore = s.firstState()
	}
	if o.restore != "" {
		args = append(args, RestoreFlag, o.restore)
	}
	if o.withHome {
		args = append(args, WithHomeFlag)
	}
	err = s.startSupervisor(append(args, s.Name), files)
	for _, f := range files[1:] {
		f.Close()
	}
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

func (s *Sandbox) startSupervisor(args []string, files []*os.File) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, args...)
	cmd.Dir = "/"
	cmd.Env = supervisorEnv(os.Environ())
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the supervisor: %w", err)
	}
	return cmd.Process.Release()
}

// supervisorEnv is what the supervisor needs of the environment. The rest
// stays out of it, because people keep API keys there.
func supervisorEnv(environ []string) []string {
	var env []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case "PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR",
			"XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR":
			env = append(env, kv)
		}
	}
	return env
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
		f, err := os.OpenFile(s.path(lockFile), os.O_RDWR, 0)
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
		f, err := os.Open(s.LogPath(ConsoleLog))
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
	key, err := readKey(s.key(clientKey))
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
		return fmt.Errorf("%w: its home is %s; sandbox rm %s removes it with the home", err, s.HomePath(), s.Name)
	}
	return fmt.Errorf("%w: start it with sandbox start %s", err, s.Name)
}

func (s *Sandbox) dialAPI(ctx context.Context) (net.Conn, error) {
	if err := s.checkAPI(); err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", s.apiPath())
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
