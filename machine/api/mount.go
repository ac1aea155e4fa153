package api

import (
	"context"

	"github.com/sourcery-zone/sandbox/virtiofs"
)

// MountRequest asks for a share that is admitted.
type MountRequest struct {
	Share virtiofs.Share `json:"share"`
}

// Mounted is a share that the guest has, and what the user should know of it.
type Mounted struct {
	Share virtiofs.Share `json:"share"`
	Notes []string       `json:"notes,omitempty"`
}

// UnmountRequest names a share by its place in the guest.
type UnmountRequest struct {
	Target string `json:"target"`
	Force  bool   `json:"force,omitempty"` // also one that is in use
}

const (
	mount   call[MountRequest, Mounted]   = "mount"
	unmount call[UnmountRequest, nothing] = "unmount"
)

// Mount gives the guest another share.
func (c *Client) Mount(ctx context.Context, r MountRequest) (Mounted, error) {
	return mount.ask(ctx, c, r)
}

// Unmount takes a share from the guest.
func (c *Client) Unmount(ctx context.Context, r UnmountRequest) error {
	_, err := unmount.ask(ctx, c, r)
	return err
}
