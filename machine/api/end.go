package api

import (
	"context"
	"time"
)

// StopRequest asks for an end in order.
type StopRequest struct {
	Grace time.Duration `json:"grace"` // nanoseconds for the guest to power down, before it is ended by force
}

// KillRequest asks for an end at once.
type KillRequest struct {
	// Restoring says that a snapshot is to take the guest's place: what the guest
	// holds of shared files is written back, and the sandbox is not removed, whatever
	// its configuration says.
	Restoring bool `json:"restoring,omitempty"`
}

// What a supervisor allows itself for an end, after the time of the guest.
const (
	QuitTimeout     = 5 * time.Second  // for QEMU to obey, and for a guest to write back what it holds
	TeardownTimeout = 10 * time.Second // for all processes to end
)

const (
	stop call[StopRequest, nothing] = "stop"
	kill call[KillRequest, nothing] = "kill"
)

// Stop returns when the supervisor has begun to end the sandbox. Its lock tells when
// that is over.
func (c *Client) Stop(ctx context.Context, r StopRequest) error {
	_, err := stop.ask(ctx, c, r)
	return err
}

// Kill is Stop without a power-down.
func (c *Client) Kill(ctx context.Context, r KillRequest) error {
	_, err := kill.ask(ctx, c, r)
	return err
}
