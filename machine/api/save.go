package api

import (
	"context"

	"github.com/sourcery-zone/sandbox/machine/snapshot"
)

// SaveRequest asks for a snapshot of the running guest.
type SaveRequest struct {
	Tag      string `json:"tag"`
	WithHome bool   `json:"withHome,omitempty"` // a copy of the home, too
	// NoSync leaves it to the kernel when what was saved is on the disk for good: for
	// what is used at once, and can be saved again.
	NoSync bool `json:"noSync,omitempty"`
}

// CopyHomeRequest asks for a copy of the home as it is while the guest stands still.
type CopyHomeRequest struct {
	Draft string `json:"draft"` // the name of a sandbox that is being made, whose home it becomes
}

const (
	save     call[SaveRequest, snapshot.Manifest] = "save"
	copyHome call[CopyHomeRequest, nothing]       = "copy-home"
)

// Save returns when the snapshot is there and the guest goes on.
func (c *Client) Save(ctx context.Context, r SaveRequest) (snapshot.Manifest, error) {
	return save.ask(ctx, c, r)
}

// CopyHome returns when the copy is there and the guest goes on.
func (c *Client) CopyHome(ctx context.Context, r CopyHomeRequest) error {
	_, err := copyHome.ask(ctx, c, r)
	return err
}
