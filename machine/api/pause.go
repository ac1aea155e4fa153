package api

import "context"

const (
	pause  call[nothing, nothing] = "pause"
	resume call[nothing, nothing] = "resume"
)

// Pause lets the guest stand still.
func (c *Client) Pause(ctx context.Context) error {
	_, err := pause.ask(ctx, c, nothing{})
	return err
}

// Resume lets a paused guest go on, with the right time.
func (c *Client) Resume(ctx context.Context) error {
	_, err := resume.ask(ctx, c, nothing{})
	return err
}
