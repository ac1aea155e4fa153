package supervisor

import (
	"context"
	"fmt"
	"time"

	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

// resize changes the running sandbox. Its disk comes first: that takes a
// moment, and the guest may refuse to give memory.
func (v *supervisor) resize(ctx context.Context, o machine.Sizes) (sizes machine.Sizes, err error) {
	if !v.transition.TryLock() {
		return sizes, errTransition
	}
	defer v.transition.Unlock()
	if st := v.currentState(); st.Status != machine.StatusRunning {
		return sizes, v.s.NotRunning(st)
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
	return machine.Sizes{MemoryMiB: min(int(bytes>>20), v.config.MemoryMiB), DiskMiB: v.config.DiskMiB}, err
}

// checkResize finds out what a running sandbox cannot have.
func (v *supervisor) checkResize(o machine.Sizes) error {
	if o.MemoryMiB > v.config.MemoryMiB {
		return remedy.Add(fmt.Errorf("the sandbox %s was started with %s of memory, and a guest that runs can have no more than that", v.s.Name, machine.FormatMiB(v.config.MemoryMiB)), remedy.StopToResize, v.s.Name, "memory", machine.FormatMiB(o.MemoryMiB))
	}
	if o.MemoryMiB != 0 && v.memory == nil {
		return fmt.Errorf("the sandbox %s has its memory in common with others that began with the same snapshot, so none of it can be given back before the sandbox was stopped and started", v.s.Name)
	}
	if o.DiskMiB != 0 && v.config.DiskMiB == 0 {
		return remedy.Add(fmt.Errorf("the sandbox %s runs without a disk, and can be given one only when it starts", v.s.Name), remedy.StopToResize, v.s.Name, "disk", machine.FormatMiB(o.DiskMiB))
	}
	_, err := v.config.Resized(o)
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
	if err := v.monitor.BlockResize(ctx, layout.DiskDir, int64(sizeMiB)<<20); err != nil {
		return fmt.Errorf("growing the disk: %w", err)
	}
	if err := v.record(func(c *machine.Config) { c.DiskMiB = sizeMiB }); err != nil {
		return err
	}
	v.needs.DiskMiB = sizeMiB
	v.log.Info("the disk has grown", "MiB", sizeMiB)
	if err := v.growFileSystem(ctx, sizeMiB); err != nil {
		return remedy.Add(fmt.Errorf("the disk has %s now, but its file system does not, which is grown at the next start: %w", machine.FormatMiB(sizeMiB), err), remedy.Restart, v.s.Name)
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
		v.report(api.Report{Note: fmt.Sprintf("the disk has its size of then, because %v\nRemedy: sandbox resize --disk %s %s", err, machine.FormatMiB(v.config.DiskMiB), v.s.Name)})
	}
}

func (v *supervisor) growFileSystem(ctx context.Context, sizeMiB int) error {
	return v.explainOldAgent(v.agentClient().GrowDisk(ctx, int64(sizeMiB)<<20))
}
