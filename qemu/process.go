package qemu

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/sourcery-zone/sandbox/internal/confine"
	"github.com/sourcery-zone/sandbox/internal/process"
)

// Process is a QEMU that was started. It is killed when this process ends.
type Process struct {
	Argv  []string       // with the program's name
	Files []OpenFile     // that it inherited, besides those of the options
	Walls confine.Report // what keeps it from the rest of the machine

	process *process.Process
}

// PID returns the process id, which stays the same after the end.
func (p *Process) PID() int { return p.process.PID() }

// Done is closed when QEMU has ended and its output has been read.
func (p *Process) Done() <-chan struct{} { return p.process.Done() }

// Err returns nil while QEMU runs and after exit status 0, and otherwise how it ended, with the last lines that it
// wrote. See Aborted, CIDTaken and PortTaken.
func (p *Process) Err() error { return p.process.Err() }

// Stop asks QEMU to end with SIGTERM and kills it when grace has passed or ctx is done. It returns when QEMU is gone,
// nil also if it had to be killed; Err says how it ended. It may be called more than once and by several goroutines.
func (p *Process) Stop(ctx context.Context, grace time.Duration) error {
	return p.process.Stop(ctx, grace)
}

// Aborted tells whether the error, of Process.Err, is of a QEMU that found a mistake of its own or made one: an
// assertion that failed, or a fault in its memory.
func Aborted(err error) bool {
	exit, ok := errors.AsType[*process.ExitError](err)
	if !ok {
		return false
	}
	status, ok := exit.State.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && (status.Signal() == syscall.SIGABRT || status.Signal() == syscall.SIGSEGV)
}
