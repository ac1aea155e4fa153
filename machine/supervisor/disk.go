package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/disk"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/qmp"
)

// diskChanges is what QEMU does to a disk before its guest runs: nothing else of
// ours writes to what a guest or a QEMU before has written.
type diskChanges struct {
	disk.Disk
	files []string // the layers
	merge int      // how many layers are united with what is below them
	grow  bool     // to its size in the configuration
}

func (c diskChanges) needed() bool { return c.merge > 0 || c.grow }

// prepareDisks adds the disks with which the guest starts to the plan, and makes
// those that are not there. The result is for changeDisks.
func (v *supervisor) prepareDisks(ctx context.Context, plan *machine.Plan) (all []diskChanges, err error) {
	for _, d := range v.config.Disks() {
		// An early end of a restore may have left one.
		if err := durable.RemoveDir(v.s.Files().RestoredDisk(d.Name)); err != nil {
			return nil, err
		}
		changes := diskChanges{Disk: d}
		if v.saved == nil {
			changes, err = v.openDisk(ctx, d)
		} else {
			changes.files, err = v.layRestoredDisk(ctx, d.Name)
		}
		if err != nil {
			return nil, err
		}
		plan.VM.Paused = plan.VM.Paused || changes.needed()
		plan.VM.Drives = append(plan.VM.Drives, disk.Drive(d.Name, changes.files, changes.merge))
		all = append(all, changes)
	}
	return all, nil
}

// openDisk looks at the disk, and makes it if it is not there. The guest formats
// it.
func (v *supervisor) openDisk(ctx context.Context, d disk.Disk) (changes diskChanges, err error) {
	changes.Disk = d
	layers, wanted := disk.Layers(v.s.Files().Disk(d.Name)), int64(d.MiB)<<20
	files, err := layers.All()
	if err == nil && len(files) == 0 {
		files, err = v.takeCache(ctx, d, layers)
	}
	if err != nil {
		return changes, err
	}
	if len(files) == 0 {
		v.log.Info("making the disk", "path", layers, "MiB", d.MiB)
		if err := os.MkdirAll(string(layers), 0o700); err != nil {
			return changes, err
		}
		changes.files = []string{layers.File(0)}
		return changes, qemu.CreateDisk(layers.File(0), wanted)
	}
	_, size, err := layers.Check()
	if err == nil {
		changes.files, err = layers.Claim(ctx)
	}
	if err != nil {
		return changes, v.s.ExplainDisk(err)
	}
	changes.grow = size < wanted
	changes.merge, err = disk.Mergeable(changes.files)
	return changes, err
}

// changeDisks has QEMU, whose guest waits for that, do what is to be done to the
// disks, and lets the guest run.
func (v *supervisor) changeDisks(ctx context.Context, all []diskChanges) error {
	if !slices.ContainsFunc(all, diskChanges.needed) {
		return nil
	}
	for _, changes := range all {
		v.log.Info("changing a disk", "disk", changes.Name, "layers", len(changes.files), "merge", changes.merge, "grow", changes.grow)
		if err := disk.Merge(ctx, v.monitor, changes.Name, changes.files, changes.merge); err != nil {
			return err
		}
		if changes.grow { // the guest lets its file system follow
			if err := v.monitor.BlockResize(ctx, changes.Name, int64(changes.MiB)<<20); err != nil {
				return fmt.Errorf("growing the disk: %w", err)
			}
		}
	}
	return v.monitor.Cont(ctx)
}

// checkDisk makes sure that the guest took its disk: an image from before
// there were disks would put everything into memory, and lose it.
func (v *supervisor) checkDisk(status agent.Status) error {
	if v.config.DiskMiB == 0 || status.Disk != "" {
		return nil
	}
	return v.explainOldAgent(&agent.UnsupportedError{Feature: agent.FeatureDisk})
}

// diskRetry is how often a guest that was stopped by a full host looks whether
// there is space again. File systems tell nobody.
const diskRetry = 2 * time.Second

// diskHeadroom is how much space makes it worthwhile to go on, in bytes: a few
// seconds' worth of writing.
const diskHeadroom = 64 << 20

// watchDisk deals with a full host for as long as QEMU runs.
func (v *supervisor) watchDisk(ctx context.Context) {
	if len(v.config.Disks()) == 0 {
		return
	}
	events, err := v.monitor.Events(ctx)
	if err != nil {
		v.log.Error("the disk is not watched", "err", err)
		return
	}
	dir := v.s.Files().Dir()
	v.keepSpare()
	go diskWatch{
		retry: diskRetry, headroom: diskHeadroom,
		free:    func() (uint64, error) { return freeSpace(dir) },
		resume:  v.monitor.Cont,
		full:    func() { v.diskFull(dir) },
		running: v.diskRunning,
	}.run(ctx, events)
}

// diskFull shows why the guest stands still.
func (v *supervisor) diskFull(dir string) {
	reason := fmt.Sprintf("the host has no space left for its disk in %s; it goes on by itself when there are %d MiB", dir, diskHeadroom>>20)
	v.log.Warn("the guest stands still", "reason", reason)
	v.report(api.Report{Note: v.config.Name + " stands still: " + reason})
	if err := os.Remove(v.s.Files().Path(layout.SpareFile)); err != nil {
		v.log.Warn("no spare space is left for the state", "err", err)
	}
	if client := v.agentClient(); client != nil {
		client.SetPaused(true)
	}
	err := v.setState(func(st *machine.State) {
		st.Reason = reason
		if st.Status == machine.StatusRunning {
			st.Status = machine.StatusPaused
		}
	})
	if err != nil {
		v.log.Error("the state could not be written", "err", err)
	}
}

// diskRunning takes back what diskFull said.
func (v *supervisor) diskRunning() {
	v.log.Info("the guest goes on")
	if client := v.agentClient(); client != nil {
		client.SetPaused(false)
	}
	v.keepSpare()
	err := v.setState(func(st *machine.State) {
		st.Reason = ""
		if st.Status == machine.StatusPaused {
			st.Status = machine.StatusRunning
		}
	})
	if err != nil {
		v.log.Error("the state could not be written", "err", err)
	}
}

// spareBytes is enough for the state and some lines of log.
const spareBytes = 256 << 10

// keepSpare reserves space with which a full host can still be told about.
// Without it the sandbox would only seem to hang.
func (v *supervisor) keepSpare() {
	f, err := os.OpenFile(v.s.Files().Path(layout.SpareFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, spareBytes), f.Close())
	}
	if err != nil {
		v.log.Warn("no space could be reserved for the state", "err", err)
	}
}

// freeSpace is what an ordinary user may still write to dir's file system, in
// bytes.
func freeSpace(dir string) (uint64, error) {
	var st unix.Statfs_t
	err := unix.Statfs(dir, &st)
	return st.Bavail * uint64(st.Bsize), err
}

// diskWatch lets a guest go on that QEMU stopped because the host was full.
type diskWatch struct {
	retry    time.Duration
	headroom uint64
	free     func() (uint64, error)
	resume   func(context.Context) error
	full     func() // called once when the guest stops
	running  func() // called once when it goes on, whoever saw to that
}

// run returns when events end.
func (w diskWatch) run(ctx context.Context, events <-chan qmp.Event) {
	ticker := time.NewTicker(w.retry)
	defer ticker.Stop()
	ticker.Stop() // it runs only while the guest is stopped
	stopped := false
	for {
		select {
		case e, ok := <-events:
			switch {
			case !ok:
				return
			case isFull(e) && !stopped:
				stopped = true
				w.full()
				ticker.Reset(w.retry)
			case e.Event == "RESUME" && stopped:
				stopped = false
				w.running()
				ticker.Stop()
			}
		case <-ticker.C:
			if free, err := w.free(); err == nil && free >= w.headroom {
				// Should it fail, the next tick tries again.
				_ = w.resume(ctx)
			}
		}
	}
}

// isFull tells the event of a guest that was stopped by a full host.
func isFull(e qmp.Event) bool {
	return e.Event == "BLOCK_IO_ERROR" && e.Data["nospace"] == true && e.Data["action"] == "stop"
}
