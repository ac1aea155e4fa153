package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/disk"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/snapshot"
	"github.com/sourcery-zone/sandbox/qmp"
)

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
func (v *supervisor) layRestoredDisk(ctx context.Context, name string) ([]string, error) {
	layers := disk.Layers(v.s.Files().RestoredDisk(name))
	from := disk.Layers(filepath.Join(v.saved.dir, name))
	err := from.LinkTo(ctx, layers, len(v.saved.Disks()[name]))
	if err != nil {
		return nil, fmt.Errorf("taking the disk of the snapshot %s: %w", v.saved.Tag, err)
	}
	files, err := layers.Add()
	return files, v.s.ExplainSnapshot(v.saved.Tag, err)
}

// loadSaved gives the waiting guest the state that was saved and lets it go on.
// Before that, its disks take the place of the sandbox's, and what was known of
// the changes on them: memory and disk change together or not at all.
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
	if !v.saved.Template {
		if err := v.s.RestoreWorkspaces(ctx, v.saved.dir); err != nil {
			return err
		}
	}
	for _, d := range v.config.Disks() {
		if err := durable.ReplaceDir(v.s.Files().RestoredDisk(d.Name), v.s.Files().Disk(d.Name)); err != nil {
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
	return remedy.Add(fmt.Errorf("the snapshot %s was not restored: %w", v.saved.Tag, err), remedy.StartWithout, v.s.Name)
}
