package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/internal/tree"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/disk"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/snapshot"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/qmp"
)

func (v *supervisor) save(ctx context.Context, r api.SaveRequest) (snap snapshot.Manifest, err error) {
	if err := v.s.CheckFreeTag(r.Tag); err != nil {
		return snap, err
	}
	if !v.transition.TryLock() {
		return snap, errTransition
	}
	defer v.transition.Unlock()
	if st := v.currentState(); st.Status != machine.StatusRunning && !v.paused.Load() {
		return snap, v.s.NotRunning(st)
	}
	if err := v.checkSavable(ctx); err != nil {
		return snap, err
	}
	v.sweepLeftovers()
	draft := filepath.Join(v.s.Files().Snapshots(), durable.HiddenName(durable.DraftPrefix, r.Tag))
	if err := os.MkdirAll(draft, 0o700); err != nil {
		return snap, fmt.Errorf("making the snapshot's directory: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("saving the snapshot %s of %s: %w", r.Tag, v.s.Name, err), tree.Remove(draft))
		}
	}()
	snap = snapshot.Manifest{Version: snapshot.Version, Tag: r.Tag, Created: time.Now(), Needs: v.needs, Template: v.config.Template}
	if !snap.Template {
		if err := v.s.SaveWorkspaces(ctx, draft); err != nil {
			return snap, err
		}
	}
	if snap.Pause, err = v.saveState(ctx, draft, r.WithHome); err != nil {
		return snap, err
	}
	// The guest runs again: what follows takes its time on the host only.
	if err := v.describe(ctx, &snap, draft); err != nil {
		return snap, err
	}
	if !r.NoSync {
		if err := snapshot.Sync(draft, snap); err != nil {
			return snap, err
		}
	}
	if err := snapshot.Write(draft, snap); err != nil {
		return snap, err
	}
	if err := snapshot.Publish(draft, v.s.Files().Snapshot(r.Tag)); err != nil {
		return snap, err
	}
	v.log.Info("a snapshot was saved", "tag", r.Tag)
	return snap, nil
}

// describe notes in the snapshot what the files in the directory are.
func (v *supervisor) describe(ctx context.Context, snap *snapshot.Manifest, dir string) (err error) {
	if err := durable.Link(ctx, v.s.Files().Key(layout.ClientKey), filepath.Join(dir, layout.ClientKey)); err != nil {
		return err
	}
	if snap.Devices, err = snapshot.Describe(ctx, filepath.Join(dir, snapshot.DevicesFile)); err != nil {
		return err
	}
	if v.memory != nil {
		memory, err := snapshot.Describe(ctx, filepath.Join(dir, snapshot.MemoryFile))
		if err != nil {
			return err
		}
		snap.Memory = &memory
	}
	if home := filepath.Join(dir, layout.HomeDir); durable.Exists(home) {
		used, err := tree.Used(home)
		if err != nil {
			return err
		}
		snap.Home = &snapshot.Home{Used: used}
	}
	for _, d := range v.config.Disks() {
		layers, err := v.describeDisk(ctx, filepath.Join(dir, d.Name))
		if err != nil {
			return err
		}
		if d.Cache == "" {
			snap.Disk = layers
		} else {
			snap.Caches = append(snap.Caches, layers)
		}
	}
	return nil
}

// describeDisk notes what the layers of a disk in the directory are.
func (v *supervisor) describeDisk(ctx context.Context, dir string) (all []snapshot.File, err error) {
	files, err := disk.Layers(dir).All()
	for _, file := range files {
		layer, err := v.describeLayer(ctx, file)
		if err != nil {
			return nil, err
		}
		all = append(all, layer)
	}
	return all, err
}

// describeLayer is Describe for a layer of the disk, of which another
// snapshot may know already what it is.
func (v *supervisor) describeLayer(ctx context.Context, file string) (snapshot.File, error) {
	info, err := os.Stat(file)
	if err != nil {
		return snapshot.File{}, err
	}
	known, _ := v.s.Snapshots() // those that cannot be read know nothing
	for _, snap := range known {
		for name, layer := range snap.Files() {
			other, err := os.Stat(filepath.Join(v.s.Files().Snapshot(snap.Tag), name))
			if err == nil && os.SameFile(info, other) {
				return layer, nil
			}
		}
	}
	return snapshot.Describe(ctx, file)
}

// checkSavable finds out whether this QEMU can save this machine, and whether
// its guest can be restored.
func (v *supervisor) checkSavable(ctx context.Context) error {
	version := v.monitor.Greeting().Version.QEMU
	if err := snapshot.CheckQEMU(qemu.Version{Major: version.Major, Minor: version.Minor, Micro: version.Micro}); err != nil {
		return remedy.Add(err, remedy.Restart, v.s.Name)
	}
	if err := v.checkPlugged(); err != nil {
		return err
	}
	blockers, err := v.monitor.MigrationBlockers(ctx)
	if err == nil && len(blockers) > 0 {
		err = v.blockedError(blockers)
	}
	if err == nil && !v.paused.Load() {
		err = v.resync(ctx, agent.ResumeConfig{}) // what a restored guest must be able to do, too
	}
	return err
}

// blockedError says why QEMU does not save a sandbox, in its words, and what to
// do where its words are known.
func (v *supervisor) blockedError(blockers []string) error {
	text := fmt.Sprintf("QEMU cannot save the sandbox %s now: %s", v.s.Name, strings.Join(blockers, "; "))
	if strings.Contains(text, "vhost-user-fs") {
		text += "\nThat is its home or a share, which QEMU 10.0 and virtiofsd 1.13 or newer can save: install those"
		return remedy.Add(remedy.Add(errors.New(text), remedy.Examine), remedy.Restart, v.s.Name)
	}
	return errors.New(text)
}

// saveState writes memory, devices and disk of one moment to the directory,
// and says for how long the guest stood still.
func (v *supervisor) saveState(ctx context.Context, dir string, withHome bool) (pause time.Duration, err error) {
	still, err := v.prepareStill(dir)
	if err != nil {
		return 0, err
	}
	defer still.close()
	return v.whileStopped(ctx, func() error {
		err := still.take(ctx)
		if err == nil && withHome {
			err = v.copyHome(ctx, v.s.Files().Home(), filepath.Join(dir, layout.HomeDir))
		}
		return err
	})
}

// whileStopped calls do while the guest stands still, and says for how long it
// did so, which is not at all if it was paused before. The caller holds
// v.transition.
func (v *supervisor) whileStopped(ctx context.Context, do func() error) (pause time.Duration, err error) {
	if v.paused.Load() {
		return 0, do()
	}
	// What the guest's kernel holds of shared files must be in them, and must
	// not be written over newer ones when a snapshot is restored.
	v.syncGuest(ctx)
	if err := v.stopCPUs(ctx); err != nil {
		return 0, err
	}
	start := time.Now()
	err = errors.Join(do(), v.contAfterSave(ctx))
	pause = time.Since(start)
	v.resyncAfterSave(ctx)
	return pause, err
}

// contAfterSave lets the guest go on, or else leaves it as one that somebody
// has paused.
func (v *supervisor) contAfterSave(ctx context.Context) error {
	err := v.contCPUs(ctx)
	if err != nil {
		err = errors.Join(err, v.showPaused("it did not go on after a snapshot: sandbox resume "+v.s.Name+" tries again"))
	}
	return err
}

// resyncAfterSave is no reason to fail: the guest is late by its pause.
func (v *supervisor) resyncAfterSave(ctx context.Context) {
	if v.paused.Load() {
		return
	}
	if err := v.resync(ctx, agent.ResumeConfig{}); err != nil {
		v.log.Warn("the guest goes on with the time at which it was saved", "err", err)
	}
}

// still is what is needed to take a picture of a guest that stands still,
// prepared while it still ran. Its owner closes it.
type still struct {
	v       *supervisor
	dir     string
	devices *os.File
	memory  *os.File // nil if it becomes a part of devices
	disks   []stillDisk
}

// stillDisk is one of the guest's disks.
type stillDisk struct {
	name   string
	layers disk.Layers
	top    *os.File // to be written to from then on
	frozen int      // how many layers are not written to any more then
}

func (v *supervisor) prepareStill(dir string) (_ *still, err error) {
	s := &still{v: v, dir: dir}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.devices, err = os.OpenFile(filepath.Join(dir, snapshot.DevicesFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, err
	}
	if v.memory != nil {
		if s.memory, err = os.OpenFile(filepath.Join(dir, snapshot.MemoryFile), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return nil, err
		}
	}
	for _, d := range v.config.Disks() {
		// It is a part of the disk from here on, and empty as long as QEMU writes to
		// the one below: whatever comes in between, no write is lost.
		still := stillDisk{name: d.Name, layers: disk.Layers(v.s.Files().Disk(d.Name))}
		files, err := still.layers.Add()
		if err != nil {
			return nil, v.s.ExplainDisk(err)
		}
		still.frozen = len(files) - 1
		if still.top, err = os.OpenFile(files[still.frozen], os.O_RDWR, 0); err != nil {
			return nil, err
		}
		s.disks = append(s.disks, still)
	}
	return s, nil
}

func (s *still) close() {
	files := []*os.File{s.devices, s.memory}
	for _, d := range s.disks {
		files = append(files, d.top)
	}
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// take saves the guest, which stands still.
func (s *still) take(ctx context.Context) error {
	for _, d := range s.disks {
		if err := s.freezeDisk(ctx, d); err != nil {
			return err
		}
	}
	moved := qmp.MemoryInState
	if s.memory != nil {
		moved = qmp.MemoryApart
	}
	if err := s.v.monitor.SaveState(ctx, s.devices, moved); err != nil {
		return err
	}
	if s.memory == nil {
		return nil
	}
	return copyMemory(ctx, s.v.memory, s.memory)
}

func (s *still) freezeDisk(ctx context.Context, d stillDisk) error {
	node := qemu.LayerNode(d.name, d.frozen)
	if err := s.v.monitor.SnapshotDrive(ctx, d.name, node, d.top); err != nil {
		return errors.Join(err, os.Remove(d.layers.File(d.frozen)))
	}
	return d.layers.LinkTo(ctx, disk.Layers(filepath.Join(s.dir, d.name)), d.frozen)
}
