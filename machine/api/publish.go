package api

import (
	"context"

	"github.com/sourcery-zone/sandbox/network"
)

// Ports lead from this machine to a guest.
type Ports struct {
	Forwards []network.Forward `json:"forwards"`
}

// AutoPorts says whether ports are published as a guest opens them.
type AutoPorts struct {
	On bool `json:"on"`
}

const (
	publish     call[Ports, Ports]       = "publish"
	unpublish   call[Ports, nothing]     = "unpublish"
	autoPublish call[AutoPorts, nothing] = "auto-publish"
)

// Publish opens ports, all or none, and returns them with those that were chosen.
func (c *Client) Publish(ctx context.Context, p Ports) (Ports, error) { return publish.ask(ctx, c, p) }

// Unpublish closes ports that were opened.
func (c *Client) Unpublish(ctx context.Context, p Ports) error {
	_, err := unpublish.ask(ctx, c, p)
	return err
}

// AutoPublish changes whether ports are published as the guest opens them.
func (c *Client) AutoPublish(ctx context.Context, p AutoPorts) error {
	_, err := autoPublish.ask(ctx, c, p)
	return err
}
