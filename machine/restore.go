package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/qemu"
)

// Restore gives the sandbox the state of a snapshot: what its guest has done
// since, in memory and on its disk, is gone. A running sandbox is ended for
// that, once it is sure that the snapshot is intact and fits. The rest is as
// with Start.
func (s *Sandbox) Restore(ctx context.Context, tag string, o StartOptions) (*Hold, error) {
	snap, err := s.Snapshot(tag)
	if err != nil {
		return nil, err
	}
	if err := s.checkFits(ctx, snap); err != nil {
		return nil, err
	}
	if err := s.VerifySnapshot(ctx, snap); err != nil {
		return nil, err
	}
	if err := s.makeWay(ctx); err != nil {
		return nil, fmt.Errorf("the sandbox %s could not be ended, so its snapshot was not restored: %w", s.Name, err)
	}
	o.restore = tag
	return s.Start(ctx, o)
}

// makeWay ends the sandbox, also one that is to be removed when it stops, but
// does not remove it.
func (s *Sandbox) makeWay(ctx context.Context) error {
	if !s.held() {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, endPatience, errNoEnd)
	defer cancel()
	return s.askForEnd(ctx, "kill?keep=true")
}

// checkFits compares what the snapshot needs with what there is.
func (s *Sandbox) checkFits(ctx context.Context, snap Snapshot) error {
	c, err := s.Config()
	if err != nil {
		return err
	}
	img, err := s.host.Images.Get(c.Image)
	if err != nil {
		return err
	}
	plan, err := s.host.Plan(ctx, c, img)
	if err != nil {
		return err
	}
	return plan.fits(c, snap)
}

func (p *Plan) fits(c Config, snap Snapshot) error {
	here, err := p.needs(c)
	if err != nil {
		return err
	}
	if differences := snap.Needs.Differences(here); len(differences) > 0 {
		return fmt.Errorf("the snapshot %s cannot be restored here:\n  %s", snap.Tag, strings.Join(differences, "\n  "))
	}
	return nil
}

// restoredDisk is where a snapshot's disk is until its memory is there too.
func (s *Sandbox) restoredDisk() string { return s.DiskPath() + ".restored" }

// prepareRestore lets the guest start with a copy of the snapshot's disk.
func (v *supervisor) prepareRestore(ctx context.Context, plan *Plan) error {
	snap, err := v.s.Snapshot(v.restore)
	if err != nil {
		return err
	}
	if err := plan.fits(v.config, snap); err != nil {
		return err
	}
	if snap.Disk == nil {
		return nil
	}
	if err := cloneFile(ctx, v.s.snapshotFile(snap.Tag, diskFile), v.s.restoredDisk()); err != nil {
		return err
	}
	if err := syncPath(v.s.restoredDisk()); err != nil {
		return err
	}
	i := slices.IndexFunc(plan.VM.Drives, func(d qemu.Drive) bool { return d.Path == v.s.DiskPath() })
	plan.VM.Drives[i].Path = v.s.restoredDisk()
	return nil
}

// loadSnapshot gives the waiting guest the snapshot's memory and lets it go
// on. Before that, its disk takes the place of the sandbox's: memory and disk
// change together or not at all.
func (v *supervisor) loadSnapshot(ctx context.Context) error {
	memory, err := os.Open(v.s.snapshotFile(v.restore, memoryFile))
	if err != nil {
		return err
	}
	defer memory.Close()
	if err := v.monitor.LoadState(ctx, memory); err != nil {
		return err
	}
	if v.config.DiskMiB != 0 {
		if err := os.Rename(v.s.restoredDisk(), v.s.DiskPath()); err != nil {
			return err
		}
	}
	v.log.Info("a snapshot was restored", "tag", v.restore)
	return v.monitor.Cont(ctx)
}

// explainNotRestored says why the snapshot was not restored, and what is left.
func (v *supervisor) explainNotRestored(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = errors.Join(cause, err)
	}
	if ctx.Err() == nil {
		// A QEMU that dies closes its sockets before its end is known.
		<-exitedWithin(v.vm.Done(), time.Second)
	}
	if v.exited() && v.vm.Err() != nil {
		err = v.vm.Err()
	}
	return fmt.Errorf("the snapshot %s was not restored: %w\nThe sandbox can be started without it: sandbox start %s", v.restore, err, v.s.Name)
}
