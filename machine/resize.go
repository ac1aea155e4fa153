package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/flock"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/disk"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

// Sizes are of a sandbox.
type Sizes = api.Sizes

// Resize gives the sandbox other sizes, where they are not 0, and returns what it has
// then.
//
// The memory of a running sandbox can be made smaller, and as large again as
// it was at the start, until it stops: its configuration stays. That of one
// that does not run is changed for all later starts. A disk grows for good, at
// once in a running sandbox; it never shrinks.
//
// What can be known to be impossible is found out before anything is changed.
func (s *Sandbox) Resize(ctx context.Context, o Sizes) (Sizes, error) {
	c, err := s.Config()
	if err != nil {
		return Sizes{}, fmt.Errorf("the sandbox %s is broken and can only be removed: %w", s.Name, err)
	}
	if _, err := c.Resized(o); err != nil {
		return Sizes{}, err
	}
	lock, err := s.Files().Lock()
	switch {
	case errors.Is(err, flock.ErrLocked):
		return s.resizeRunning(ctx, o)
	case errors.Is(err, os.ErrNotExist):
		return Sizes{}, fmt.Errorf("there is no sandbox named %s any more", s.Name)
	case err != nil:
		return Sizes{}, err
	}
	defer lock.Close()
	return s.resizeStopped(o)
}

// Resized is the configuration with the new sizes, if it can have them.
func (c Config) Resized(o Sizes) (Config, error) {
	if o.MemoryMiB != 0 {
		c.MemoryMiB = o.MemoryMiB
	}
	if o.DiskMiB != 0 {
		if o.DiskMiB < c.DiskMiB {
			return c, remedy.Add(fmt.Errorf("the disk of %s has %s and cannot be made smaller, because what lies at its end would be lost", c.Name, FormatMiB(c.DiskMiB)), remedy.LargerDisk)
		}
		c.DiskMiB = o.DiskMiB
	}
	return c, c.Validate()
}

// FormatMiB is a size as the flags take it.
func FormatMiB(n int) string {
	if n%1024 == 0 {
		return strconv.Itoa(n/1024) + "G"
	}
	return strconv.Itoa(n) + "M"
}

// resizeStopped changes the configuration, which the disk follows at the next
// start. The caller holds the lock.
func (s *Sandbox) resizeStopped(o Sizes) (Sizes, error) {
	c, err := s.Config()
	if err != nil {
		return Sizes{}, err
	}
	if c, err = c.Resized(o); err != nil {
		return Sizes{}, err
	}
	if err := checkMemory(c.MemoryMiB); err != nil {
		return Sizes{}, err
	}
	// What the next start would refuse is better refused now.
	disk := disk.Layers(s.Files().Disk(layout.DiskDir))
	if files, err := disk.All(); err != nil {
		return Sizes{}, err
	} else if o.DiskMiB != 0 && len(files) > 0 {
		if _, _, err := disk.Check(); err != nil {
			return Sizes{}, s.ExplainDisk(err)
		}
	}
	if err := durable.WriteJSON(s.Files().Path(layout.ConfigFile), c); err != nil {
		return Sizes{}, err
	}
	return Sizes{MemoryMiB: c.MemoryMiB, DiskMiB: c.DiskMiB}, nil
}

// resizeRunning has the supervisor resize.
func (s *Sandbox) resizeRunning(ctx context.Context, o Sizes) (sizes Sizes, err error) {
	if st := s.State(); !st.Live() {
		return sizes, s.busy() // with another command
	}
	return s.api().Resize(ctx, o)
}
