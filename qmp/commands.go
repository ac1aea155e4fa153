package qmp

import (
	"context"
	"errors"
	"io"
)

// RunState says what the machine as a whole is doing. QEMU has more states than are named here.
type RunState string

// The states that somebody who runs a machine meets.
const (
	StateRunning       RunState = "running"
	StatePaused        RunState = "paused"         // by stop
	StatePrelaunch     RunState = "prelaunch"      // started with -S, and not continued yet
	StateInMigrate     RunState = "inmigrate"      // waits for an incoming migration
	StateFinishMigrate RunState = "finish-migrate" // is about to have gone elsewhere
	StatePostMigrate   RunState = "postmigrate"    // its state has gone elsewhere
	StateShutdown      RunState = "shutdown"       // the guest is off, QEMU was told to stay
	StateSuspended     RunState = "suspended"      // the guest put itself to sleep
	StateGuestPanicked RunState = "guest-panicked" // and told so through pvpanic
	StateIOError       RunState = "io-error"       // a disk failed, often because the host's is full
	StateInternalError RunState = "internal-error" // the accelerator gave up
)

// Status is the answer to query-status.
type Status struct {
	State   RunState `json:"status"`
	Running bool     `json:"running"` // the CPUs execute
}

// Status asks what the machine is doing.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.Execute(ctx, "query-status", nil, &s)
	return s, err
}

// Stop halts the guest's CPUs until Cont.
func (c *Client) Stop(ctx context.Context) error {
	return c.Execute(ctx, "stop", nil, nil)
}

// Cont lets the guest's CPUs run.
func (c *Client) Cont(ctx context.Context) error {
	return c.Execute(ctx, "cont", nil, nil)
}

// SystemPowerdown presses the machine's power button. It returns when the button is pressed; whether
// and when the guest obeys shows in the events POWERDOWN and SHUTDOWN and in the process's end.
func (c *Client) SystemPowerdown(ctx context.Context) error {
	return c.Execute(ctx, "system_powerdown", nil, nil)
}

// Quit ends QEMU at once, without asking the guest. QEMU's end may outrun its answer, so a monitor
// that closes the connection has obeyed too. The process itself is the caller's to wait for.
func (c *Client) Quit(ctx context.Context) error {
	err := c.Execute(ctx, "quit", nil, nil)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}
