package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Identity names one process for ever. A pid alone does not: once its process
// has ended, or the machine has started anew, the kernel gives it to a
// stranger.
type Identity struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"startTime"` // clock ticks between the boot and the process's start: field 22 of /proc/PID/stat
	BootID    string `json:"bootID"`    // of the boot in which it started
}

var (
	ErrGone     = errors.New("the process has ended")
	ErrStranger = errors.New("the pid belongs to another process now")
)

// Identify reads who the process pid is at this moment.
func Identify(pid int) (Identity, error) {
	boot, err := bootID()
	if err != nil {
		return Identity{}, err
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	switch {
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH):
		return Identity{}, ErrGone
	case err != nil:
		return Identity{}, err
	}
	start, err := startTime(stat)
	if err != nil {
		return Identity{}, fmt.Errorf("reading who process %d is: %w", pid, err)
	}
	return Identity{PID: pid, StartTime: start, BootID: boot}, nil
}

func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id)), err
}

// startTime is field 22 of a /proc/PID/stat.
func startTime(stat []byte) (uint64, error) {
	fields, err := statFields(stat)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(fields[22-firstStatField], 10, 64)
}

// firstStatField is the number, as in proc(5), of what statFields returns
// first: the process's state.
const firstStatField = 3

// statFields splits a /proc/PID/stat after the program's name, which stands in
// parentheses and may hold spaces and parentheses of its own.
func statFields(stat []byte) ([]string, error) {
	end := bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[end+1:]))
	const rss = 24 // the last one that anybody here wants
	if end < 0 || len(fields) <= rss-firstStatField {
		return nil, errors.New("/proc/PID/stat has too few fields")
	}
	return fields, nil
}

// Open returns a handle on exactly the process that id names, or
// ErrGone or ErrStranger. The caller closes it.
func Open(id Identity) (*Handle, error) {
	if boot, err := bootID(); err != nil || boot != id.BootID {
		return nil, errors.Join(ErrGone, err) // no process survives a reboot
	}
	fd, err := unix.PidfdOpen(id.PID, 0)
	switch {
	case errors.Is(err, unix.ESRCH):
		return nil, ErrGone
	case err != nil:
		return nil, fmt.Errorf("opening process %d: %w", id.PID, err)
	}
	p := &Handle{fd: fd, ID: id}
	// In this order: whatever happens to the pid after the comparison, the
	// handle stays with the process that was compared.
	now, err := Identify(id.PID)
	if err == nil && now != id {
		err = ErrStranger
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Alive tells whether the process that id names has not ended.
func (id Identity) Alive() bool {
	now, err := Identify(id.PID)
	return err == nil && now == id
}

// Handle is a process that need not be our child.
type Handle struct {
	fd int
	ID Identity
}

func (p *Handle) Close() error { return unix.Close(p.fd) }

// Signal sends sig; a process that has ended is no error.
func (p *Handle) Signal(sig unix.Signal) error {
	if err := unix.PidfdSendSignal(p.fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("sending %s to process %d: %w", unix.SignalName(sig), p.ID.PID, err)
	}
	return nil
}

// Wait returns true when the process has ended, and false when limit has
// passed or ctx is done before.
func (p *Handle) Wait(ctx context.Context, limit time.Duration) bool {
	cancel, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return false
	}
	defer unix.Close(cancel)
	stop := context.AfterFunc(ctx, func() { _, _ = unix.Write(cancel, []byte{1, 0, 0, 0, 0, 0, 0, 0}) })
	defer stop()
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}, {Fd: int32(cancel), Events: unix.POLLIN}}
	deadline := time.Now().Add(limit)
	for {
		left := max(time.Until(deadline), 0)
		n, err := unix.Poll(fds, int(left.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err == nil && n > 0 && fds[0].Revents != 0
	}
}
