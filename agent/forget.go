package agent

import (
	"context"
	"fmt"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

// Forget makes the guest's kernel forget files that no program uses, and so tell those who serve its shares that they need
// not remember them either: the guest needs [FeatureForget]. What is not written yet is kept.
func (c *Client) Forget(ctx context.Context) error {
	if err := c.call(ctx, wire.MethodForget, nil, nil); err != nil {
		return fmt.Errorf("the guest could not be made to forget files: %w", err)
	}
	return nil
}
