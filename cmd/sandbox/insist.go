package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/machine"
)

// insistence finds out when a person, or a program such as timeout, means that a
// command is to end although it does not: the guest, which passes signals on, need
// not do so, and a command may ignore them. The second signal of a kind says so,
// and the first after patience.
type insistence struct {
	patience time.Duration
	given    chan os.Signal // gets what was insisted on, once

	seen  map[os.Signal]bool
	timer *time.Timer
}

func newInsistence() *insistence {
	return &insistence{patience: machine.DefaultGrace, given: make(chan os.Signal, 1), seen: map[os.Signal]bool{}}
}

// note is called for each signal, by one goroutine.
func (i *insistence) note(sig os.Signal) {
	switch sig {
	case unix.SIGINT, unix.SIGTERM, unix.SIGQUIT:
	default:
		return // it need not end a command
	}
	if i.seen[sig] {
		i.give(sig)
		return
	}
	i.seen[sig] = true
	if i.timer == nil {
		i.timer = time.AfterFunc(i.patience, func() { i.give(sig) })
	}
}

func (i *insistence) give(sig os.Signal) {
	select {
	case i.given <- sig:
	default:
	}
}

// close is called when no more signals are noted.
func (i *insistence) close() {
	if i.timer != nil {
		i.timer.Stop()
	}
}
