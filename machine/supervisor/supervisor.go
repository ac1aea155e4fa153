package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/process"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/snapshot"
	"github.com/sourcery-zone/sandbox/network/gateway"
	"github.com/sourcery-zone/sandbox/network/upstream"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/qmp"
)

// supervisor owns everything that a running sandbox consists of.
type supervisor struct {
	host     *machine.Host
	s        *machine.Sandbox
	config   machine.Config
	saved    *saved         // the snapshot with which it starts, or nil
	withHome bool           // the home is restored from saved, too
	needs    snapshot.Needs // of its snapshots
	plan     *machine.Plan  // of this start
	log      *slog.Logger
	started  time.Time
	report   func(api.Report)

	console  *logFile
	resolver *resolver        // nil without a network
	gateway  *gateway.Gateway // nil unless the guest's network is ours
	reader   reader
	values   values       // of the guest's secrets
	keys     keyQuestions // about the user's ssh agent

	certificates []byte // of authorities that the guest is to believe, in PEM
	input        *consoleInput
	servers      []fileServer   // guarded by mu once the guest runs
	shareLog     *logFile       // of the servers
	deaths       *deaths        // of the servers
	tags         int            // how many were given to shares: the number of the next one
	audit        *auditor       // of what the guest does to its shares; nil before these are served
	launcher     *qemu.Launcher // of QEMU, before that is started
	launch       func(*qemu.Launcher, qemu.Config, qemu.StartOptions) (*qemu.Process, error)
	vm           *qemu.Process
	memory       *os.File // the guest's, or nil if only QEMU sees it
	walled       bool     // the user knows which walls are around QEMU
	monitor      *qmp.Client
	bye          *farewell // nil before QEMU answers
	mux          agent.Mux

	retried  bool      // the start before this one failed, as if by chance
	agentKey string    // the file of the key that opens the guest's agent
	guestKey agent.Pin // by which the agent proves itself

	vsockCID   uint32 // 0 without vsock
	ports      ports  // as they were chosen for this start
	guestPorts guestPorts
	upstream   upstream.Settings // the proxies of the environment of who has started it
	sshAgent   string            // the socket of that user's; empty: none
	gpgAgent   string            // the extra socket of their gpg-agent; empty: none
	search     []string          // domains in which the guest is to look for short names

	allowCommand string // see AllowCommand
	askCommand   string // see AskCommand

	asked chan struct{} // after a question of the guest's network

	transition   sync.Mutex  // held by whoever changes whether the guest runs
	paused       atomic.Bool // by Pause
	disconnected atomic.Bool // the guest is to be told that its connections have ended: see resync
	standing     atomic.Bool // by cancelWhenStanding
	held         atomic.Bool // the sandbox lives only as long as its starter

	mu     sync.Mutex
	state  machine.State
	over   bool          // by teardown
	client *agent.Client // nil until the agent answers

	stop     chan stopRequest
	stopping chan struct{} // closed by the first stop request
	stopOnce sync.Once
	done     chan struct{} // closed when the sandbox has ended and its state is written
}

// stopRequest asks for the end of the sandbox.
type stopRequest struct {
	grace  time.Duration // for an orderly power-down; 0: none
	keep   bool          // also a sandbox that is to be removed when it stops
	sync   bool          // without a power-down, still write back shared files
	reason string
}

// memoryLimit is how much memory, in bytes, Go may use before it rather collects
// garbage all the time. A supervisor takes 18 MiB (docs/benchmarks.md), and each
// command whose output nobody reads up to 6 MiB for the windows of its streams;
// all else that a guest says is bounded. What a hostile guest can make is garbage.
const memoryLimit = 64 << 20

// run is the supervisor's main function: it runs the sandbox until its
// end. It expects the descriptors that Sandbox.Start passes, and what to do from
// one of them.
func run(ctx context.Context, options []Option) error {
	requests := os.NewFile(api.FDStart, "request")
	defer requests.Close() // not before: see again
	request, err := api.ReadStart(requests)
	if err != nil {
		return err
	}
	unix.CloseOnExec(api.FDStart)
	lock := os.NewFile(api.FDLock, "lock")
	defer lock.Close()
	reports := os.NewFile(api.FDReport, "report")
	defer reports.Close()
	unix.CloseOnExec(api.FDLock)
	unix.CloseOnExec(api.FDReport)
	secrets := inheritSecrets(request.Secrets)
	defer func() {
		for _, f := range secrets {
			f.Close()
		}
	}()
	// Nobody who runs as we do may trace this process or read its memory, in
	// which keys and commands' secrets are; nor does it leave a core dump.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("keeping others out of the supervisor: %w", err)
	}
	debug.SetMemoryLimit(memoryLimit)

	host, err := machine.OpenHost(request.Dirs)
	if err != nil {
		return err
	}
	s, err := host.Get(request.Name)
	if err != nil {
		return err
	}
	logs, err := newLogFile(s.Files().Log(layout.SupervisorLog))
	if err != nil {
		return err
	}
	defer logs.Close()
	if err := debug.SetCrashOutput(logs.file, debug.CrashOptions{}); err != nil { // a defect of ours, which has no other place
		return err
	}
	v, err := newSupervisor(host, s, request)
	if err != nil {
		return err
	}
	v.values.files = secrets
	v.log, v.report = slog.New(slog.NewTextHandler(logs, nil)), api.NewReporter(reports)
	for _, option := range options {
		option(v)
	}
	if request.Hold {
		unix.CloseOnExec(api.FDHold)
		go v.watchHold(os.NewFile(api.FDHold, "hold"))
	}
	go v.watchSignals(ctx)
	again, err := v.run(ctx)
	if again != againNot {
		err = v.again(again, request)
		err = errors.Join(err, v.finish(ending{status: machine.StatusCrashed, reason: err.Error()}))
	}
	if err != nil {
		v.log.Error("the sandbox ended", "err", err)
		v.report(api.Failed(err))
	}
	return err
}

// newSupervisor returns one for the sandbox, which tells nobody of what it does.
func newSupervisor(host *machine.Host, s *machine.Sandbox, r api.StartRequest) (*supervisor, error) {
	v := &supervisor{
		host: host, s: s, withHome: r.WithHome, retried: r.Again, upstream: r.Upstream, sshAgent: r.SSHAgent, gpgAgent: r.GPGAgent, started: time.Now(),
		log: slog.New(slog.DiscardHandler), report: func(api.Report) {}, launch: (*qemu.Launcher).Start,
		input: newConsoleInput(), stop: make(chan stopRequest, 8), stopping: make(chan struct{}), done: make(chan struct{}),
		asked:    make(chan struct{}, 1),
		agentKey: s.Files().Key(layout.ClientKey),
	}
	v.held.Store(r.Hold)
	if r.Restore == "" {
		return v, nil
	}
	v.agentKey = filepath.Join(r.Restore, layout.ClientKey)
	var err error
	v.saved, err = openSaved(r.Restore)
	return v, err
}

// watchHold ends the sandbox when the command that it was started for is gone,
// whichever way that command ended.
func (v *supervisor) watchHold(hold *os.File) {
	defer hold.Close()
	if n, _ := io.Copy(io.Discard, hold); n > 0 {
		v.held.Store(false)
		return // released: see Hold.Release
	}
	v.requestStop(stopRequest{sync: true, reason: "the command that it was started for has ended"})
}

func (v *supervisor) watchSignals(ctx context.Context) {
	signals := make(chan os.Signal, 1)
	// A lost terminal is no reason to stop; systemd and people send the others.
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	defer signal.Stop(signals)
	select {
	case sig := <-signals:
		v.requestStop(stopRequest{grace: machine.DefaultGrace, reason: fmt.Sprintf("its supervisor got the signal %v", sig)})
	case <-v.done:
	case <-ctx.Done():
		v.requestStop(stopRequest{reason: "its supervisor was cancelled"})
	}
}

func (v *supervisor) requestStop(r stopRequest) {
	v.stopOnce.Do(func() { close(v.stopping) })
	select {
	case v.stop <- r:
	case <-v.done:
	}
}

// toStop tells whether somebody has asked for the end.
func (v *supervisor) toStop() bool {
	select {
	case <-v.stopping:
		return true
	default:
		return false
	}
}

func (v *supervisor) run(ctx context.Context) (rerun, error) {
	defer close(v.done)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var err error
	if v.config, err = v.s.Config(); err != nil {
		return againNot, err
	}
	self, err := process.Identify(os.Getpid())
	if err != nil {
		return againNot, err
	}
	if err := v.setState(func(st *machine.State) {
		*st = machine.State{Status: machine.StatusStarting, API: api.Version, Supervisor: self.PID, Identity: &self, Started: v.started}
	}); err != nil {
		return againNot, err
	}
	serveAPI, err := v.listenAPI()
	if err == nil {
		defer serveAPI()
		err = v.bootUnlessStopped(ctx)
	}
	var end ending
	switch {
	case err == nil:
		end = v.live(ctx)
	case errors.Is(err, errStopped):
		r := <-v.stop
		end = ending{status: machine.StatusStopped, reason: r.reason, remove: v.config.Remove}
	case !v.retried && !v.toStop() && v.failedByChance():
		v.log.Warn("the start failed and is tried once more", "err", err)
		v.teardown()
		return againAsBefore, nil
	default:
		end = ending{status: machine.StatusCrashed, reason: "it did not start: " + err.Error()}
	}
	v.teardown()
	if end.written {
		v.keepCaches(context.WithoutCancel(ctx))
	}
	if end.restart && !v.toStop() {
		v.log.Info("runs again", "reason", end.reason)
		return againAsNew, nil
	}
	return againNot, errors.Join(err, v.finish(end))
}

// errStopped is why a start was given up.
var errStopped = errors.New("the sandbox was stopped while it started")

func (v *supervisor) bootUnlessStopped(ctx context.Context) error {
	booting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-v.stopping:
			cancel(errStopped)
		case <-booting.Done():
		}
	}()
	err := v.boot(booting)
	if err != nil && context.Cause(booting) == errStopped {
		return errStopped
	}
	return err
}

// live waits for whatever ends the running sandbox, and brings the guest down.
func (v *supervisor) live(ctx context.Context) ending {
	served := v.sharesDied()
	select {
	case <-v.vm.Done():
		return v.guestEnded()
	case server := <-served:
		if v.followsGuest(server) {
			return v.guestEnded()
		}
		return ending{status: machine.StatusCrashed, reason: (&deadShareError{server}).Error(), restart: v.config.Restart == machine.RestartAlways}
	case r := <-v.stop:
		_ = v.setState(func(st *machine.State) { st.Status = machine.StatusStopping })
		v.log.Info("stopping", "reason", r.reason, "grace", r.grace)
		written := v.bringDown(ctx, r)
		return ending{status: machine.StatusStopped, reason: r.reason, remove: v.config.Remove && !r.keep, written: written}
	}
}

// bringDown powers the guest off, by force when it does not obey in time, and tells whether the guest had written
// before what it had to write.
func (v *supervisor) bringDown(ctx context.Context, r stopRequest) (written bool) {
	if v.paused.Load() && (r.grace > 0 || r.sync) { // only a guest that runs can end in order
		if err := v.unpause(ctx); err != nil {
			v.log.Warn("the paused guest is ended by force", "err", err)
			r = stopRequest{}
		}
	}
	switch {
	case r.grace > 0:
		v.noteClones(ctx)
		written = v.powerDown(ctx, r.grace)
	case r.sync:
		written = v.syncGuest(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, api.QuitTimeout)
	defer cancel()
	select {
	case <-v.vm.Done():
		return written
	default:
	}
	if err := v.monitor.Quit(ctx); err != nil {
		v.log.Warn("QEMU did not take the quit command", "err", err)
		return written
	}
	select {
	case <-v.vm.Done():
	case <-ctx.Done():
	}
	return written
}

// syncGuest writes the guest's dirty pages of shared files to the host, and those of its
// disks to these, and tells whether that was done. It is bounded: a guest that does not
// answer loses what it did not write.
func (v *supervisor) syncGuest(ctx context.Context) bool {
	client := v.agentClient()
	if client == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, api.QuitTimeout)
	defer cancel()
	// Not as a command: the start of a process takes an emulated guest longer.
	if err := client.Sync(ctx); err != nil {
		v.log.Warn("what the guest had not written back is lost", "err", err)
		return false
	}
	return true
}

// powerDown tells whether the guest has powered off.
func (v *supervisor) powerDown(ctx context.Context, grace time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	ask := v.monitor.SystemPowerdown
	if client := v.agentClient(); client != nil {
		ask = client.PowerOff
	}
	if err := ask(ctx); err != nil {
		v.log.Warn("the guest did not take the request to power down", "err", err)
	}
	select {
	case <-v.vm.Done():
		return v.vm.Err() == nil
	case server := <-v.sharesDied():
		if v.followsGuest(server) {
			return true
		}
		v.log.Warn("the guest cannot power down and is ended by force", "err", &deadShareError{server})
		return false
	case r := <-v.stop: // somebody has become impatient
		ctx, cancel := context.WithTimeout(ctx, r.grace)
		defer cancel()
		select {
		case <-v.vm.Done():
			return v.vm.Err() == nil
		case <-ctx.Done():
		}
	case <-ctx.Done():
	}
	v.log.Warn("the guest did not power down in time and is ended by force", "grace", grace)
	return false
}

// teardown ends every process, the guest before its file servers: a guest that
// waits for a dead file server can never be ended in order.
func (v *supervisor) teardown() {
	ctx, cancel := context.WithTimeout(context.Background(), api.TeardownTimeout)
	defer cancel()
	if client := v.agentClient(); client != nil {
		client.Close()
	}
	if v.mux != nil {
		v.mux.Close()
	}
	v.launcher.Close()
	if v.vm != nil {
		if err := v.vm.Stop(ctx, time.Second); err != nil {
			v.log.Error("QEMU could not be ended", "err", err)
		}
	}
	if v.monitor != nil {
		v.monitor.Close()
	}
	for _, server := range v.currentServers() {
		if err := server.Stop(ctx); err != nil {
			v.log.Error("virtiofsd could not be ended", "err", err)
		}
	}
	v.audit.close()
	if err := v.recoverHome(); err != nil {
		v.log.Error("the home is not what it was before the snapshot was to be restored: the next start tries again", "err", err)
	}
	v.forgetMemory()
	v.closeValues()
	v.gateway.Close()
	v.resolver.Close()
	v.reader.Close()
	if v.console != nil {
		v.console.Close()
	}
	// Who still watches the guest keeps off the state: it is the end's now, or the next run's.
	v.mu.Lock()
	defer v.mu.Unlock()
	v.over = true
}

// finish leaves the sandbox as its last state says, or removes it.
func (v *supervisor) finish(end ending) error {
	v.log.Info("ended", "status", end.status, "reason", end.reason)
	if end.remove {
		return v.s.Erase()
	}
	ended := time.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	err := v.writeState(func(st *machine.State) {
		st.Status, st.Reason, st.Ended = end.status, end.reason, ended
		st.Supervisor, st.Identity, st.QEMU, st.Gateway, st.Ports, st.Questions = 0, nil, 0, 0, nil, nil
	})
	if err != nil { // the disk is full: what matters most may still fit
		err = v.writeState(func(st *machine.State) {
			*st = machine.State{Status: end.status, Reason: end.reason, Started: st.Started, Ended: ended, Clones: st.Clones}
		})
	}
	return errors.Join(os.RemoveAll(v.s.Files().RuntimeDir()), err)
}

// setState changes the state and publishes it in the state file, as long as that is this run's to write.
func (v *supervisor) setState(change func(*machine.State)) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.over {
		return errors.New("the sandbox has ended")
	}
	return v.writeState(change)
}

// writeState is setState at any time. The caller holds v.mu.
func (v *supervisor) writeState(change func(*machine.State)) error {
	change(&v.state)
	return durable.WriteJSON(v.s.Files().Path(layout.StateFile), v.state)
}

// record changes the configuration, also for later starts. Only what changes is touched,
// as others read the rest meanwhile. The caller holds the lock of transitions, or nobody
// else can ask for any yet.
func (v *supervisor) record(change func(*machine.Config)) error {
	c := v.config
	change(&c)
	if err := durable.WriteJSON(v.s.Files().Path(layout.ConfigFile), c); err != nil {
		return err
	}
	change(&v.config)
	return nil
}

func (v *supervisor) currentState() machine.State {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.state
}

func (v *supervisor) agentClient() *agent.Client {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.client
}

// reach notes that a stage of the start was reached.
func (v *supervisor) reach(stage string, more func(*machine.State)) {
	after := time.Since(v.started)
	v.log.Info("reached", "stage", stage, "after", after)
	err := v.setState(func(st *machine.State) {
		st.Timings = append(st.Timings, machine.Timing{Stage: stage, After: after})
		if more != nil {
			more(st)
		}
	})
	if err != nil {
		v.log.Error("the state could not be written", "err", err)
	}
	v.report(api.Report{Stage: stage})
}
