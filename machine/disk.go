package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/qmp"
)

// diskSerial is how the guest finds the disk among its drives: by its serial
// number, which the kernel command line repeats, so that a guest never takes a
// disk that is late for one that is absent.
const diskSerial = "disk"

// diskID is the disk's name in QEMU.
const diskID = "disk"

// minDiskMiB is enough for a file system with its journal; what a user
// installs needs more.
const minDiskMiB = 64

// maxDiskMiB is what the guest's file system (ext4 with blocks of 4 KiB) can
// use.
const maxDiskMiB = 16 << 20

// DiskPath is the directory of the sandbox's writable disk on the host. It is
// there from the first start of a sandbox with Config.DiskMiB, and its files
// are qcow2 images, each above the one with the next lower number.
func (s *Sandbox) DiskPath() string { return s.path(diskDir) }

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
	return &DiskUsage{Path: s.DiskPath(), Virtual: int64(c.DiskMiB) << 20, Used: layers(s.DiskPath()).used()}
}

// Reset gives the sandbox its image's own file system again: what the guest
// wrote to its disk is gone, its home and the shares stay. A running sandbox
// is an error unless force is set: then it is killed first. A sandbox without
// a disk has nothing to reset, as each of its starts is clean.
func (s *Sandbox) Reset(ctx context.Context, force bool) error {
	lock, err := s.lock()
	if errors.Is(err, errLocked) && force {
		if err := s.Kill(ctx); err != nil {
			return err
		}
		lock, err = s.lock()
	}
	if errors.Is(err, errLocked) {
		return fmt.Errorf("the sandbox %s is %s: stop it first (sandbox stop %[1]s), or reset it at once (sandbox reset --force %[1]s)", s.Name, s.State().Status)
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	// The next start makes a new one.
	if err := removeDir(s.DiskPath()); err != nil {
		return fmt.Errorf("removing the disk: %w", err)
	}
	return nil
}

// removeDir removes a directory in one step, if it is there: what is left of it
// after an early end is nobody's.
func removeDir(dir string) error {
	doomed := filepath.Join(filepath.Dir(dir), hiddenName(removedPrefix, filepath.Base(dir)))
	err := os.Rename(dir, doomed)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return removeTree(doomed)
}

// planDisk adds the disk to the plan, and finds out early whether it can be
// made.
func (h *Host) planDisk(p *Plan, c Config) error {
	if c.DiskMiB == 0 {
		return nil
	}
	p.VM.Cmdline = append(slices.Clone(p.VM.Cmdline), "sandbox.disk="+diskSerial)
	_, err := qemu.FindImg(p.QEMU.Binary)
	return err
}

// prepareDisk makes the disk with which the guest starts.
func (v *supervisor) prepareDisk(ctx context.Context, plan *Plan) error {
	if v.config.DiskMiB == 0 {
		return nil
	}
	img, err := qemu.FindImg(plan.QEMU.Binary)
	if err != nil {
		return err
	}
	// An early end of a restore may have left one.
	if err := removeDir(v.s.path(restoredDisk)); err != nil {
		return err
	}
	disk := layers(v.s.DiskPath())
	if v.saved == nil {
		err = v.makeDisk(ctx, disk, img)
	} else {
		disk, err = v.layRestoredDisk(ctx, img)
	}
	if err != nil {
		return err
	}
	drive, err := disk.drive()
	plan.VM.Drives = append(plan.VM.Drives, drive)
	return err
}

// makeDisk makes the disk unless there is one. The guest formats it.
func (v *supervisor) makeDisk(ctx context.Context, disk layers, img string) error {
	files, err := disk.all()
	if err != nil || len(files) > 0 {
		return errors.Join(err, disk.merge(ctx, img))
	}
	v.log.Info("making the disk", "path", disk, "MiB", v.config.DiskMiB)
	if err := os.MkdirAll(string(disk), 0o700); err != nil {
		return err
	}
	return qemu.CreateDisk(ctx, img, disk.path(0), v.config.DiskMiB)
}

// checkDisk makes sure that the guest took its disk: an image from before
// there were disks would put everything into memory, and lose it.
func (v *supervisor) checkDisk(status agent.Status) error {
	if v.config.DiskMiB == 0 || status.Disk != "" {
		return nil
	}
	return fmt.Errorf("the agent of the image %s knows nothing of disks, so what is installed would be lost: build the image anew (sandbox image build) and make a new sandbox from it", v.config.Image)
}

// diskRetry is how often a guest that was stopped by a full host looks whether
// there is space again. File systems tell nobody.
const diskRetry = 2 * time.Second

// diskHeadroom is how much space makes it worthwhile to go on, in bytes: a few
// seconds' worth of writing.
const diskHeadroom = 64 << 20

// watchDisk deals with a full host for as long as QEMU runs.
func (v *supervisor) watchDisk(ctx context.Context) {
	if v.config.DiskMiB == 0 {
		return
	}
	events, err := v.monitor.Events(ctx)
	if err != nil {
		v.log.Error("the disk is not watched", "err", err)
		return
	}
	dir := v.s.DiskPath()
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
	v.report(report{Note: v.config.Name + " stands still: " + reason})
	if err := os.Remove(v.s.path(spareFile)); err != nil {
		v.log.Warn("no spare space is left for the state", "err", err)
	}
	if client := v.agentClient(); client != nil {
		client.SetPaused(true)
	}
	err := v.setState(func(st *State) {
		st.Reason = reason
		if st.Status == StatusRunning {
			st.Status = StatusPaused
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
	err := v.setState(func(st *State) {
		st.Reason = ""
		if st.Status == StatusPaused {
			st.Status = StatusRunning
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
	f, err := os.OpenFile(v.s.path(spareFile), os.O_RDWR|os.O_CREATE, 0o600)
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
