package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/flock"
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
	if _, err := c.resized(o); err != nil {
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

// resized is the configuration with the new sizes, if it can have them.
func (c Config) resized(o Sizes) (Config, error) {
	if o.MemoryMiB != 0 {
		c.MemoryMiB = o.MemoryMiB
	}
	if o.DiskMiB != 0 {
		if o.DiskMiB < c.DiskMiB {
			return c, fmt.Errorf("the disk of %s has %s and cannot be made smaller, because what lies at its end would be lost: give --disk a larger size, or make a new sandbox and copy what you need", c.Name, mebibytes(c.DiskMiB))
		}
		c.DiskMiB = o.DiskMiB
	}
	return c, c.Validate()
}

// mebibytes is a size as the flags take it.
func mebibytes(n int) string {
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
	if c, err = c.resized(o); err != nil {
		return Sizes{}, err
	}
	if err := checkMemory(c.MemoryMiB); err != nil {
		return Sizes{}, err
	}
	// What the next start would refuse is better refused now.
	disk := disk.Layers(s.Files().Disk())
	if files, err := disk.All(); err != nil {
		return Sizes{}, err
	} else if o.DiskMiB != 0 && len(files) > 0 {
		if _, _, err := disk.Check(); err != nil {
			return Sizes{}, s.explainDisk(err)
		}
	}
	if err := durable.WriteJSON(s.Files().Path(layout.ConfigFile), c); err != nil {
		return Sizes{}, err
	}
	return Sizes{MemoryMiB: c.MemoryMiB, DiskMiB: c.DiskMiB}, nil
}

// resizeRunning has the supervisor resize.
func (s *Sandbox) resizeRunning(ctx context.Context, o Sizes) (sizes Sizes, err error) {
	if st := s.State(); !st.live() {
		return sizes, s.busy() // with another command
	}
	return s.api().Resize(ctx, o)
}

// resize changes the running sandbox. Its disk comes first: that takes a
// moment, and the guest may refuse to give memory.
func (v *supervisor) resize(ctx context.Context, o Sizes) (sizes Sizes, err error) {
	if !v.standing.TryLock() {
		return sizes, errStanding
	}
	defer v.standing.Unlock()
	if st := v.currentState(); st.Status != StatusRunning {
		return sizes, v.s.notRunning(st)
	}
	if err := v.checkResize(o); err != nil {
		return sizes, err
	}
	if o.DiskMiB != 0 {
		// To its end, whatever becomes of who asked: half of it is of no use.
		if err := v.growDisk(context.WithoutCancel(ctx), o.DiskMiB); err != nil {
			return sizes, err
		}
	}
	if o.MemoryMiB != 0 {
		if err := v.resizeMemory(ctx, o.MemoryMiB); err != nil {
			return sizes, err
		}
	}
	bytes, err := v.monitor.QueryBalloon(ctx)
	return Sizes{MemoryMiB: min(int(bytes>>20), v.config.MemoryMiB), DiskMiB: v.config.DiskMiB}, err
}

// checkResize finds out what a running sandbox cannot have.
func (v *supervisor) checkResize(o Sizes) error {
	if o.MemoryMiB > v.config.MemoryMiB {
		return fmt.Errorf("the sandbox %s was started with %s of memory, and a guest that runs can have no more than that: stop it (sandbox stop %[1]s), resize it (sandbox resize --memory %[3]s %[1]s) and start it again", v.s.Name, mebibytes(v.config.MemoryMiB), mebibytes(o.MemoryMiB))
	}
	if o.MemoryMiB != 0 && v.memory == nil {
		return fmt.Errorf("the sandbox %s has its memory in common with others that began with the same snapshot, so none of it can be given back before the sandbox was stopped and started", v.s.Name)
	}
	if o.DiskMiB != 0 && v.config.DiskMiB == 0 {
		return fmt.Errorf("the sandbox %s runs without a disk, and can be given one only when it starts: stop it (sandbox stop %[1]s), resize it (sandbox resize --disk %[2]s %[1]s) and start it again", v.s.Name, mebibytes(o.DiskMiB))
	}
	_, err := v.config.resized(o)
	return err
}

// growTimeout is for a guest to extend its file system, which is a few writes
// for each GiB.
const growTimeout = 2 * time.Minute

// growDisk grows the disk and its file system while the guest uses them.
func (v *supervisor) growDisk(ctx context.Context, sizeMiB int) error {
	ctx, cancel := context.WithTimeout(ctx, growTimeout)
	defer cancel()
	// Asked for nothing, an agent that can do this does nothing.
	if err := v.growFileSystem(ctx, 0); err != nil {
		return err
	}
	if err := v.monitor.BlockResize(ctx, disk.ID, int64(sizeMiB)<<20); err != nil {
		return fmt.Errorf("growing the disk: %w", err)
	}
	c := v.config
	c.DiskMiB = sizeMiB
	if err := durable.WriteJSON(v.s.Files().Path(layout.ConfigFile), c); err != nil {
		return err
	}
	v.config.DiskMiB, v.needs.DiskMiB = sizeMiB, sizeMiB
	v.log.Info("the disk has grown", "MiB", sizeMiB)
	if err := v.growFileSystem(ctx, sizeMiB); err != nil {
		return fmt.Errorf("the disk has %s now, but its file system does not: %w\nIt is grown at the next start (sandbox restart %s)", mebibytes(sizeMiB), err, v.s.Name)
	}
	return nil
}

// growRestoredDisk makes a disk that was smaller when it was saved as large as
// the sandbox's has become since. It is of use if that fails, too.
func (v *supervisor) growRestoredDisk(ctx context.Context) {
	if v.saved.Needs.DiskMiB >= v.config.DiskMiB {
		return
	}
	if err := v.growDisk(ctx, v.config.DiskMiB); err != nil {
		v.log.Warn("the restored disk is smaller than it should be", "err", err)
		v.report(api.Report{Note: fmt.Sprintf("the disk has its size of then, because %v\nRemedy: sandbox resize --disk %s %s", err, mebibytes(v.config.DiskMiB), v.s.Name)})
	}
}

func (v *supervisor) growFileSystem(ctx context.Context, sizeMiB int) error {
	err := v.agentClient().GrowDisk(ctx, int64(sizeMiB)<<20)
	if refused, ok := errors.AsType[*agent.ControlError](err); ok && refused.Code == agent.CodeUnknownMethod {
		return fmt.Errorf("the agent of the image %s is too old to grow a file system: build the image anew (sandbox image build) and make a new sandbox from it", v.config.Image)
	}
	return err
}
