package machine

import (
	"context"
	"fmt"
	"os"

	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/snapshot"
)

// SaveOptions say what is saved and how.
type SaveOptions struct {
	WithHome bool // a copy of the home, too
	// NoSync leaves it to the kernel when what was saved is on the disk for good: for
	// what is used at once, and can be saved again.
	NoSync bool
}

// SaveSnapshot saves the state of the running sandbox, which goes on
// afterwards. A snapshot that could not be saved to its end never shows, and
// those from before are left alone.
func (s *Sandbox) SaveSnapshot(ctx context.Context, tag string, o SaveOptions) (snapshot.Manifest, error) {
	var snap snapshot.Manifest
	if err := s.CheckFreeTag(tag); err != nil {
		return snap, err
	}
	if err := s.checkStarted(); err != nil {
		return snap, fmt.Errorf("a snapshot is of a sandbox that runs: %w", err)
	}
	if c, err := s.Config(); err == nil && o.WithHome && c.NoHome {
		return snap, remedy.Add(fmt.Errorf("the home of %s is in the guest, and so a part of every snapshot", s.Name), remedy.LeaveOut, "with-home")
	}
	return s.api().Save(ctx, api.SaveRequest{Tag: tag, WithHome: o.WithHome, NoSync: o.NoSync})
}

func (s *Sandbox) CheckFreeTag(tag string) error {
	if err := layout.CheckTag(tag); err != nil {
		return err
	}
	if _, err := os.Lstat(s.Files().Snapshot(tag)); err == nil {
		return remedy.Add(api.Errorf(api.CodeExist, "the sandbox %s has a snapshot %s already", s.Name, tag), remedy.OtherTag, s.Name, tag)
	}
	return nil
}
