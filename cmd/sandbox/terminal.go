package main

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// foregroundPoll is how often, in milliseconds, a program in the background
// looks whether the terminal was given to it: the shell's fg tells a program
// that runs nothing.
const foregroundPoll = 200

// ttyInput is the person's terminal as the input of something in a guest. It
// is read, and put into raw mode, only while our process group is the one in
// its foreground: whoever else tries is stopped by the kernel.
type ttyInput struct {
	in  *os.File
	raw bool // the guest does what the terminal's driver would
	// taken is called when the terminal became ours; may be nil. Its size can
	// be another one since.
	taken func()

	continued *os.File // an eventfd, which a poll for what is typed can wait for too

	mu     sync.Mutex
	before *term.State // while it is in raw mode
	done   bool
}

func newTTYInput(in *os.File, raw bool) (*ttyInput, error) {
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	return &ttyInput{in: in, raw: raw, continued: os.NewFile(uintptr(event), "continued")}, nil
}

// ours reports whether we may use the terminal. The kernel gives everything to
// those whose controlling terminal is another one.
func (t *ttyInput) ours() bool {
	group, err := unix.IoctlGetInt(int(t.in.Fd()), unix.TIOCGPGRP)
	return err != nil || group == unix.Getpgrp()
}

// Read implements io.Reader. It waits while the terminal is not ours.
func (t *ttyInput) Read(p []byte) (int, error) {
	for {
		if !t.ours() {
			t.forget()
			if _, err := t.wait(unix.PollFd{Fd: -1}, foregroundPoll); err != nil {
				return 0, err
			}
			continue
		}
		if err := t.take(); err != nil {
			return 0, err
		}
		// A read that has begun would stop us when we are put into the
		// background, and this does not.
		typed, err := t.wait(unix.PollFd{Fd: int32(t.in.Fd()), Events: unix.POLLIN}, -1)
		if err != nil {
			return 0, err
		}
		if typed && t.ours() && t.ready() {
			return t.in.Read(p)
		}
	}
}

// wait waits until terminal, if that is one, can be read, until we were
// continued, or for some milliseconds unless that is -1. Bash's fg sends no
// SIGCONT to a job that runs already: who was continued has to look from then
// on whose the terminal is, and must not wait for a key.
func (t *ttyInput) wait(terminal unix.PollFd, milliseconds int) (typed bool, err error) {
	fds := []unix.PollFd{terminal, {Fd: int32(t.continued.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, milliseconds)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return false, os.NewSyscallError("poll", err)
	}
	if n > 0 && fds[1].Revents != 0 {
		var count [8]byte
		_, _ = unix.Read(int(fds[1].Fd), count[:])
	}
	return n > 0 && fds[0].Revents != 0, nil
}

// take puts the terminal into raw mode, if that is wanted and it is ours.
func (t *ttyInput) take() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.raw || t.done || t.before != nil || !t.ours() {
		return nil
	}
	before, err := term.MakeRaw(int(t.in.Fd()))
	if err != nil {
		return err
	}
	t.before = before
	if t.taken != nil {
		t.taken()
	}
	return nil
}

// ready reports whether the terminal is in the mode in which it is to be read.
func (t *ttyInput) ready() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.raw || t.done || t.before != nil
}

// forget is for a terminal that went to others, who set it as they want it.
func (t *ttyInput) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.before = nil
}

// resume is for SIGCONT: the shell may have changed the modes while we stood.
func (t *ttyInput) resume() {
	t.forget()
	_ = t.take() // its error comes again when the terminal is read
	_, _ = unix.Write(int(t.continued.Fd()), binary.NativeEndian.AppendUint64(nil, 1))
}

// suspend is for SIGTSTP that did not come from the keyboard, which in raw mode
// sends none: it gives the terminal back and stops us until SIGCONT.
func (t *ttyInput) suspend() {
	t.giveBack()
	_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
}

// close gives the terminal back for good.
func (t *ttyInput) close() {
	t.mu.Lock()
	t.done = true
	t.mu.Unlock()
	t.giveBack()
}

func (t *ttyInput) giveBack() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.before != nil && t.ours() {
		_ = term.Restore(int(t.in.Fd()), t.before)
	}
	t.before = nil
}
