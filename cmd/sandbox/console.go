package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
)

type consoleOptions struct {
	readOnly, take bool
	tty            bool
	detachKeys     []byte
}

// attachConsole shows the console until the sandbox ends or the person leaves.
func attachConsole(ctx context.Context, s *machine.Sandbox, o consoleOptions) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if o.readOnly {
		return shownConsole(ctx, s)
	}
	input, err := s.ConsoleInput(ctx, o.take)
	if errors.Is(err, api.ErrConsoleTaken) {
		fmt.Fprintln(notes(), "sandbox: somebody else writes to this console, so you only read; --take takes it over")
		return shownConsole(ctx, s)
	}
	if err != nil {
		return err
	}
	defer input.Close()
	var typed io.Reader = os.Stdin
	if o.tty {
		restore, err := o.rawTerminal(cancel, &typed)
		if err != nil {
			return err
		}
		defer restore()
	}
	go func() { _, _ = io.Copy(input, typed) }() // after the end of the input one can still read
	go func() {
		_, _ = io.Copy(io.Discard, input) // its end is the end of our turn
		st := s.State().Status
		if ctx.Err() == nil && (st == machine.StatusRunning || st == machine.StatusStarting) {
			fmt.Fprint(os.Stderr, "\r\nsandbox: somebody else took this console over: from now on you only read\r\n")
		}
	}()
	return shownConsole(ctx, s)
}

// rawTerminal makes the keyboard the input, and leaving it the end of ctx.
func (o consoleOptions) rawTerminal(leave context.CancelCauseFunc, typed *io.Reader) (restore func(), err error) {
	input, err := newTTYInput(os.Stdin, true)
	if err != nil {
		return nil, err
	}
	if err := input.take(); err != nil {
		return nil, err
	}
	keys := newKeyboard(input, o.detachKeys)
	*typed = keys
	signals := make(chan os.Signal, 1)
	notify(signals, unix.SIGHUP, unix.SIGCONT, unix.SIGTSTP)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case why := <-keys.left:
				leave(why)
			case sig := <-signals:
				switch sig {
				case unix.SIGHUP:
					leave(errHangup)
				case unix.SIGCONT:
					input.resume()
				case unix.SIGTSTP:
					input.suspend()
				}
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
		input.close()
		fmt.Fprintln(os.Stderr)
	}, nil
}

func shownConsole(ctx context.Context, s *machine.Sandbox) error {
	screen := newScreenModes(os.Stdout)
	err := s.Console(ctx, screen, true)
	if isTerminal(os.Stdout) {
		screen.close()
	}
	switch why := context.Cause(ctx); {
	case why == error(errDetached):
		return nil
	case why == errHangup:
		return &exitCode{128 + int(unix.SIGHUP), nil}
	case why != nil:
		return &exitCode{128 + int(unix.SIGINT), nil}
	}
	return err
}
