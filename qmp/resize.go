package qmp

import "context"

// Balloon asks the guest to live with that much memory, in bytes, and returns when it is asked. More than the machine has
// means all of it. The guest gives memory up as it can, or never; QueryBalloon tells how far it is, and so does the event
// BALLOON_CHANGE, at most once in a second.
func (c *Client) Balloon(ctx context.Context, bytes int64) error {
	return c.Execute(ctx, "balloon", map[string]int64{"value": bytes}, nil)
}

// QueryBalloon returns how much memory, in bytes, the guest has at the moment, by its own word.
func (c *Client) QueryBalloon(ctx context.Context) (bytes int64, err error) {
	var info struct {
		Actual int64 `json:"actual"`
	}
	err = c.Execute(ctx, "query-balloon", nil, &info)
	return info.Actual, err
}

// BlockResize makes the drive that long, in bytes, while the guest uses it. drive is the id of a device of -device.
// What lies beyond a smaller size is lost.
func (c *Client) BlockResize(ctx context.Context, drive string, bytes int64) error {
	node, err := c.driveNode(ctx, drive)
	if err != nil {
		return err
	}
	return c.Execute(ctx, "block_resize", map[string]any{"node-name": node, "size": bytes}, nil)
}
