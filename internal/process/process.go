package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// defaultTailLines is enough for QEMU's longest complaint and still fits in a terminal.
	defaultTailLines = 20

	// pipeGrace is how long output is still read after the program's end. Without a limit, a
	// grandchild that inherited standard error would keep Done open for as long as it lives.
	pipeGrace = 2 * time.Second
)

// Options says what becomes of the program's output.
type Options struct {
	// Log gets all standard error, and standard output too if cmd.Stdout is nil. It may be nil. It is
	// not closed, and only one goroutine at a time writes to it.
	Log io.Writer

	// TailLines is how many of the last lines of standard error an ExitError quotes; 0 means 20.
	TailLines int

	// Name is what errors call the program; empty: the base name of its path.
	Name string

	// TimerSlack is by how much timers of the program may be late (PR_SET_TIMERSLACK); 0: as ours. A program in Go wakes
	// every 20 µs to look after itself while it has something to do, or as seldom as this says.
	TimerSlack time.Duration
}

// Process is a running or ended program.
type Process struct {
	name  string
	cmd   *exec.Cmd
	slack time.Duration
	tail  *tail
	done  chan struct{}
	err   error // valid once done is closed
}

// ExitError reports a program that ended with another status than 0, or by a signal.
type ExitError struct {
	Name  string           // base name of the program
	State *os.ProcessState // how it ended
	Tail  []string         // its last lines of standard error, oldest first
}

// Error names the program, how it ended and what it said last.
func (e *ExitError) Error() string {
	if len(e.Tail) == 0 {
		return fmt.Sprintf("%s ended with %s and wrote nothing to its standard error", e.Name, e.State)
	}
	return fmt.Sprintf("%s ended with %s: %s", e.Name, e.State, strings.Join(e.Tail, "\n\t"))
}

// Start starts cmd and arranges that the kernel kills it when this process ends. It takes cmd over: the
// caller must not call its Start, Run or Wait. A context given to exec.CommandContext keeps its meaning.
func Start(cmd *exec.Cmd, o Options) (*Process, error) {
	p := &Process{
		name:  cmp.Or(o.Name, filepath.Base(cmd.Path)),
		cmd:   cmd,
		slack: o.TimerSlack,
		tail:  newTail(o.TailLines),
		done:  make(chan struct{}),
	}
	log := &syncWriter{w: o.Log}
	cmd.Stderr = fanOut(cmd.Stderr, p.tail, log)
	if cmd.Stdout == nil && o.Log != nil {
		cmd.Stdout = log
	}
	if cmd.WaitDelay == 0 {
		cmd.WaitDelay = pipeGrace
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL

	started := make(chan error)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.name, err)
	}
	return p, nil
}

// run forks and waits on one OS thread. The parent-death signal is sent when the *thread* that forked
// ends, and the Go runtime ends threads at will unless a goroutine is locked to them.
func (p *Process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	if err := p.start(); err != nil {
		started <- err
		return
	}
	started <- nil
	err := p.cmd.Wait()
	switch state := p.cmd.ProcessState; {
	case state != nil && state.Success():
		// What Wait may still complain of (output cut off by pipeGrace, a log that cannot be
		// written) does not make the program's own success a failure.
	case state != nil:
		p.err = &ExitError{Name: p.name, State: state, Tail: p.tail.lines()}
	default:
		p.err = fmt.Errorf("waiting for %s: %w", p.name, err)
	}
	close(p.done)
}

// start forks. A child has the slack of the thread that forks it, for all threads of its own.
func (p *Process) start() error {
	if p.slack == 0 {
		return fork(p.cmd)
	}
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(p.slack.Nanoseconds()), 0, 0, 0); err != nil {
		return fmt.Errorf("letting its timers be late: %w", err)
	}
	err := fork(p.cmd)
	return errors.Join(err, unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0)) // that which this thread had at first
}

// forking is held while this process may be looked into.
var forking sync.Mutex

// fork starts cmd. Who gives a child a user namespace writes its maps of ids to files that the kernel makes root's
// if the child cannot be looked into (PR_SET_DUMPABLE), which it has from us. So for that moment we can be.
func fork(cmd *exec.Cmd) error {
	if cmd.SysProcAttr.UidMappings == nil {
		return cmd.Start()
	}
	forking.Lock()
	defer forking.Unlock()
	if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || dumpable == 1 {
		return cmd.Start()
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		return err
	}
	err := cmd.Start()
	return errors.Join(err, unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
}

// PID returns the process id, which stays the same after the end.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the program has ended and its output has been read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns nil while the program runs and after exit status 0, otherwise an *ExitError.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Signal sends sig. After the program's end it returns os.ErrProcessDone.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Stop asks the program to end with SIGTERM and kills it when grace has passed or ctx is done. It returns
// when the program is gone, nil also if it had to be killed; Err says how it ended. It may be called more
// than once and by several goroutines.
func (p *Process) Stop(ctx context.Context, grace time.Duration) error {
	if err := p.signalUnlessGone(syscall.SIGTERM); err != nil {
		return err
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	if err := p.signalUnlessGone(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.done
	return nil
}

func (p *Process) signalUnlessGone(sig os.Signal) error {
	if err := p.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("sending %v to %s (pid %d): %w", sig, p.name, p.PID(), err)
	}
	return nil
}
