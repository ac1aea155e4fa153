package supervisor

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/tree"
)

// sweepLeftovers deletes what a save or a removal that was killed has left.
// Only the supervisor saves, so it must not be doing so.
func (v *supervisor) sweepLeftovers() {
	for _, dir := range []string{v.s.Files().Dir(), v.s.Files().Snapshots()} {
		entries, _ := os.ReadDir(dir) // no directory, no leftovers
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), durable.DraftPrefix) && !strings.HasPrefix(e.Name(), durable.RemovedPrefix) {
				continue
			}
			if err := tree.Remove(filepath.Join(dir, e.Name())); err != nil {
				v.log.Warn("a leftover cannot be deleted", "err", err)
			}
		}
	}
}
