package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

// MaxTouches is how many names [Client.Touch] takes at a time.
const MaxTouches = 1024

// A Touch is a name of a share that its host has changed.
type Touch struct {
	// Path is in the share: relative, and "." for the share itself. There need not be anything.
	Path string
	// Other says that it may lead to something else than before, or to nothing.
	Other bool
}

// Touch makes the guest's kernel tell programs that the host has changed names of the share with that tag: the guest needs
// [FeatureTouch]. It does so by giving what is there a time of modification, which the host takes for none. Of what is
// gone, those are told who watched that itself.
func (c *Client) Touch(ctx context.Context, tag string, modified time.Time, names []Touch) error {
	params := wire.TouchParams{Tag: tag, Seconds: modified.Unix(), Nanoseconds: modified.Nanosecond()}
	for _, n := range names {
		params.Names = append(params.Names, wire.TouchedName{Path: wire.RawString(n.Path), Other: n.Other})
	}
	if err := c.call(ctx, wire.MethodTouch, params, nil); err != nil {
		return fmt.Errorf("the guest's programs could not be told of changes: %w", err)
	}
	return nil
}
