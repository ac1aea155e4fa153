package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/disk"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/snapshot"
	"github.com/sourcery-zone/sandbox/qmp"
)

// Restore gives the sandbox the state of a snapshot: what its guest has done
// since, in memory and on its disk, is gone. A running sandbox is ended for
// that, once it is sure that the snapshot is intact and fits. With withHome, the
// home becomes what it was, too, if the snapshot has it. The rest is as with
// Start.
func (s *Sandbox) Restore(ctx context.Context, tag string, withHome bool, o StartOptions) (*Hold, error) {
	snap, err := s.Snapshot(tag)
	if err != nil {
		return nil, err
	}
	if withHome && snap.Home == nil {
		return nil, fmt.Errorf("the snapshot %s has no home: restore it without --with-home, and save with it next time (sandbox snapshot save --with-home %s)", tag, s.Name)
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
	o.restore, o.withHome = s.Files().Snapshot(tag), withHome
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
	return s.askForEnd(ctx, func(ctx context.Context) error { return s.api().Kill(ctx, api.KillRequest{Restoring: true}) })
}

// checkFits compares what the snapshot needs with what there is.
func (s *Sandbox) checkFits(ctx context.Context, snap snapshot.Manifest) error {
	c, err := s.Config()
	if err != nil {
		return err
	}
	img, err := s.host.Image(c.Image)
	if err != nil {
		return err
	}
	plan, err := s.host.Plan(ctx, c, img)
	if err != nil {
		return err
	}
	return plan.fits(c, snap)
}

func (p *Plan) fits(c Config, snap snapshot.Manifest) error {
	here, err := p.needs(c)
	if err != nil {
		return err
	}
	differences := snap.Needs.Differences(here)
	if len(differences) == 0 {
		return nil
	}
	text := fmt.Sprintf("the snapshot %s cannot be restored here:", snap.Tag)
	for _, d := range differences {
		text += fmt.Sprintf("\n  %s: %s", d, differenceRemedy(d.Property, snap.Needs))
	}
	return errors.New(text)
}

// differenceRemedy is what to do about a machine that is not what a snapshot needs.
func differenceRemedy(p snapshot.Property, needed snapshot.Needs) string {
	switch p {
	case snapshot.PropertyQEMU:
		return "install that version, or save a new snapshot"
	case snapshot.PropertyMachine:
		return "start the sandbox where KVM is as it was then"
	case snapshot.PropertyAccel:
		return "KVM must be usable exactly if it was then: sandbox doctor tells"
	case snapshot.PropertyCPU:
		return "restore on a machine of the same kind"
	case snapshot.PropertyMemory:
		return fmt.Sprintf("stop the sandbox and make it as it was (sandbox resize --memory %s NAME)", mebibytes(needed.MemoryMiB))
	case snapshot.PropertyTransport:
		return "vsock must be usable exactly if it was then: sandbox doctor tells"
	}
	return "the sandbox was changed since, and must be as it was"
}

// saved is the directory of a snapshot with which a guest starts in place of
// booting.
type saved struct {
	dir string
	snapshot.Manifest
	filled <-chan error // gets the end of the memory's copying, once QEMU is being started
}

// openSaved reads what the snapshot in the directory is.
func openSaved(dir string) (*saved, error) {
	snap, err := snapshot.Read(dir)
	return &saved{dir: dir, Manifest: snap}, err
}

// layRestoredDisk puts a disk together with which a restored guest can start,
// and lists its layers.
func (v *supervisor) layRestoredDisk(ctx context.Context) ([]string, error) {
	layers := disk.Layers(v.s.Files().Path(layout.RestoredDisk))
	from := disk.Layers(filepath.Join(v.saved.dir, layout.DiskDir))
	err := from.LinkTo(ctx, layers, len(v.saved.Disk))
	if err != nil {
		return nil, fmt.Errorf("taking the disk of the snapshot %s: %w", v.saved.Tag, err)
	}
	files, err := layers.Add()
	return files, v.s.explainSnapshot(v.saved.Tag, err)
}

// loadSaved gives the waiting guest the state that was saved and lets it go on.
// Before that, its disk takes the place of the sandbox's: memory and disk
// change together or not at all.
func (v *supervisor) loadSaved(ctx context.Context) error {
	devices, err := os.Open(filepath.Join(v.saved.dir, snapshot.DevicesFile))
	if err != nil {
		return err
	}
	defer devices.Close()
	moved := qmp.MemoryInState
	if v.saved.Memory != nil {
		moved = qmp.MemoryApart
		if err := v.awaitMemory(ctx); err != nil {
			return err
		}
	}
	if err := v.monitor.LoadState(ctx, devices, moved); err != nil {
		return err
	}
	if v.config.DiskMiB != 0 {
		if err := durable.ReplaceDir(v.s.Files().Path(layout.RestoredDisk), v.s.Files().Disk()); err != nil {
			return err
		}
	}
	if err := durable.RemoveDir(v.s.Files().Path(layout.HomeBefore)); err != nil {
		return err
	}
	v.log.Info("a snapshot was restored", "from", v.saved.dir)
	return v.monitor.Cont(ctx)
}

// awaitMemory returns when the guest's memory is there: devices look into it
// when they are loaded.
func (v *supervisor) awaitMemory(ctx context.Context) error {
	if v.memory == nil {
		return nil
	}
	select {
	case err := <-v.saved.filled:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
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
	return fmt.Errorf("the snapshot %s was not restored: %w\nThe sandbox can be started without it: sandbox start %s", v.saved.Tag, err, v.s.Name)
}
