package machine

import (
	"context"
	"errors"
	"fmt"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/flock"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/disk"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/qemu"
)

// minDiskMiB is enough for a file system with its journal; what a user
// installs needs more.
const minDiskMiB = 64

// maxDiskMiB is what the guest's file system (ext4 with blocks of 4 KiB) can
// use.
const maxDiskMiB = 16 << 20

// Disks are those that the guest has, besides the image's store.
func (h Hardware) Disks() []disk.Disk {
	var all []disk.Disk
	if h.DiskMiB != 0 {
		all = append(all, disk.Disk{Name: layout.DiskDir, MiB: h.DiskMiB})
	}
	for i, target := range h.Caches {
		all = append(all, disk.Disk{Name: layout.CacheDir(i), MiB: cacheMiB, Cache: target})
	}
	return all
}

// DiskUsage is the size of a sandbox's disk, in bytes.
type DiskUsage struct {
	Path    string `json:"path"`         // a directory
	Virtual int64  `json:"virtualBytes"` // what the guest sees
	Used    int64  `json:"usedBytes"`    // what it takes on the host
}

// diskUsage returns nil for a sandbox without a disk. A disk that was not
// made yet takes nothing.
func (s *Sandbox) diskUsage(c Config) *DiskUsage {
	if c.DiskMiB == 0 {
		return nil
	}
	return &DiskUsage{Path: s.Files().Disk(layout.DiskDir), Virtual: int64(c.DiskMiB) << 20, Used: disk.Layers(s.Files().Disk(layout.DiskDir)).Used()}
}

// Reset gives the sandbox its image's own file system again: what the guest
// wrote to its disk is gone, its home and the shares stay. A running sandbox
// is an error unless force is set: then it is killed first. A sandbox without
// a disk has nothing to reset, as each of its starts is clean.
func (s *Sandbox) Reset(ctx context.Context, force bool) error {
	lock, err := s.Files().Lock()
	if errors.Is(err, flock.ErrLocked) && force {
		if err := s.Kill(ctx); err != nil {
			return err
		}
		lock, err = s.Files().Lock()
	}
	if errors.Is(err, flock.ErrLocked) {
		return remedy.Add(remedy.Add(s.liveError(), remedy.Stop, s.Name), remedy.ResetNow, s.Name)
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	c, err := s.Config()
	if err != nil {
		return err
	}
	// The next start makes new ones, and takes caches as they were kept last.
	for _, d := range c.Disks() {
		if err := durable.RemoveDir(s.Files().Disk(d.Name)); err != nil {
			return fmt.Errorf("removing the disk: %w", err)
		}
	}
	if err := s.forgetWorkspaces(); err != nil {
		return err
	}
	// What kept it from starting may have been the disk.
	if st := s.State(); st.Status == StatusCrashed {
		st.Status, st.Reason = StatusStopped, ""
		return durable.WriteJSON(s.Files().Path(layout.StateFile), st)
	}
	return nil
}

// ExplainDisk says what to do about a disk that is not opened.
func (s *Sandbox) ExplainDisk(err error) error {
	if _, ok := errors.AsType[*qemu.LayerError](err); ok {
		return remedy.Add(err, remedy.NewDisk, s.Name)
	}
	return err
}
