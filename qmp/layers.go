package qmp

import "context"

// mergeJob is the name of MergeLayer's job, of which there is one at a time.
const mergeJob = "merge-layer"

// MergeLayer writes what the drive's uppermost layer holds into the one below it, which the machine must have opened for
// writing, and lets go of the upper one: the drive writes to the lower one from then on. Both are names of nodes.
// Until the machine writes again, which it must not do before the upper image is removed, both images together
// show what the lower one alone shows.
func (c *Client) MergeLayer(ctx context.Context, top, below string) error {
	err := c.RunJob(ctx, "block-commit", map[string]string{"device": top, "base-node": below}, mergeJob)
	if err != nil {
		return err
	}
	return c.Execute(ctx, "blockdev-del", map[string]string{"node-name": top}, nil)
}
