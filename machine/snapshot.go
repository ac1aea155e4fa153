package machine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/tree"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// Names within a snapshot's directory.
const (
	manifestFile = "manifest.json" // Snapshot; what has none is no snapshot
	memoryFile   = "memory"        // the guest's memory, page by page
	devicesFile  = "devices"       // the rest of the machine, as qmp.Client.SaveState writes it
	// and HomeDir, if the snapshot has the home; DiskDir, the layers of the disk if the sandbox has one, and ClientKey,
	// which opens the agent that is in the memory
)

// snapshotVersion is that of the manifest, and of the devices that every
// machine has.
const snapshotVersion = 2

// Snapshot is the state of a running sandbox at one moment: its memory, its
// devices and its disk. Home and shares are on the host, and no part of it.
type Snapshot struct {
	Version  int           `json:"version"`
	Tag      string        `json:"tag"`
	Created  time.Time     `json:"created"`
	Pause    time.Duration `json:"pause"` // nanoseconds for which the guest stood still
	Needs    Needs         `json:"needs"`
	Template bool          `json:"template,omitempty"` // it belongs to nobody: see Template
	Devices  SnapshotFile  `json:"devices"`
	// Memory is nil if it is a part of Devices, as that of a machine is which
	// shares memory with other forks.
	Memory *SnapshotFile `json:"memory,omitempty"`
	// Home is the copy of the home, if one was asked for. It has no checksum.
	Home *SnapshotHome `json:"home,omitempty"`
	// Disk are the layers of the disk, the lowest first.
	Disk []SnapshotFile `json:"disk,omitempty"`
}

// SnapshotHome is a copy of the home in a snapshot.
type SnapshotHome struct {
	Used int64 `json:"used"` // what it would take on the host if it shared nothing, in bytes
}

// SnapshotFile is one file of a snapshot.
type SnapshotFile struct {
	Size     int64  `json:"size"`
	Used     int64  `json:"used"`     // what it takes on the host when it is saved
	Checksum string `json:"checksum"` // of what is not zero in it, see package machine

	// Modified is when it was last written to. Only its owner, which no QEMU is,
	// could make it say otherwise.
	Modified time.Time `json:"modified,omitzero"`
}

// Used is what the snapshot takes on the host, in bytes, besides the layers of
// the disk that it has in common with older ones.
func (s Snapshot) Used() int64 {
	used := s.MemoryUsed() + s.DiskUsed()
	if s.Home != nil {
		used += s.Home.Used
	}
	return used
}

// MemoryUsed is the part of memory and devices in Used.
func (s Snapshot) MemoryUsed() int64 {
	used := s.Devices.Used
	if s.Memory != nil {
		used += s.Memory.Used
	}
	return used
}

// DiskUsed is the part of the disk in Used.
func (s Snapshot) DiskUsed() int64 {
	if len(s.Disk) == 0 {
		return 0
	}
	return s.Disk[len(s.Disk)-1].Used
}

// files are the snapshot's files by their paths in its directory.
func (s Snapshot) files() map[string]SnapshotFile {
	files := map[string]SnapshotFile{devicesFile: s.Devices}
	if s.Memory != nil {
		files[memoryFile] = *s.Memory
	}
	for i, layer := range s.Disk {
		files[layers(layout.DiskDir).file(i)] = layer
	}
	return files
}

// Needs is what a machine must be like for a snapshot to be restored in it.
type Needs struct {
	Image     image.Ref        `json:"image"`
	QEMU      string           `json:"qemu"` // major and minor version: machine types change with it
	Machine   qemu.Machine     `json:"machine"`
	Accel     qemu.Accel       `json:"accel"`
	CPU       string           `json:"cpu"`
	CPUs      int              `json:"cpus"`
	MemoryMiB int              `json:"memoryMiB"`
	DiskMiB   int              `json:"diskMiB"`
	Transport Transport        `json:"transport"`
	Network   string           `json:"network"`
	Shares    []virtiofs.Share `json:"shares"`

	// EarlyConsole is a device that a machine gets which did not start at first. A restore gives it what it needs.
	EarlyConsole bool `json:"earlyConsole,omitempty"`
}

// needs says what a snapshot of a sandbox that runs by this plan needs.
func (p *Plan) needs(c Config) (Needs, error) {
	cpu, err := processor(p.VM.Accel)
	return Needs{
		Image: c.Image, QEMU: fmt.Sprintf("%d.%d", p.QEMU.Version.Major, p.QEMU.Version.Minor),
		Machine: p.VM.Machine, Accel: p.VM.Accel, CPU: cpu, CPUs: c.CPUs, MemoryMiB: c.MemoryMiB, DiskMiB: c.DiskMiB,
		Transport: p.Transport, Network: string(c.Network), Shares: p.Shares,
	}, err
}

// Differences lists what a machine that is like here lacks, a sentence each.
func (n Needs) Differences(here Needs) []string {
	var list []string
	compare := func(what string, needed, is any, remedy string) {
		if needed, is := fmt.Sprint(needed), fmt.Sprint(is); needed != is {
			list = append(list, fmt.Sprintf("%s was %s and is %s: %s", what, needed, is, remedy))
		}
	}
	const config = "the sandbox was changed since, and must be as it was"
	compare("the image", n.Image, here.Image, config)
	compare("QEMU's version", n.QEMU, here.QEMU, "install that version, or save a new snapshot")
	compare("the machine type", n.Machine, here.Machine, "start the sandbox where KVM is as it was then")
	compare("the accelerator", n.Accel, here.Accel, "KVM must be usable exactly if it was then: sandbox doctor tells")
	compare("the processor", n.CPU, here.CPU, "restore on a machine of the same kind")
	compare("the number of CPUs", n.CPUs, here.CPUs, config)
	compare("the memory in MiB", n.MemoryMiB, here.MemoryMiB, fmt.Sprintf("stop the sandbox and make it as it was (sandbox resize --memory %s NAME)", mebibytes(n.MemoryMiB)))
	// A disk that was smaller then is grown once it is restored.
	if n.DiskMiB > here.DiskMiB || (n.DiskMiB == 0) != (here.DiskMiB == 0) {
		compare("the disk in MiB", n.DiskMiB, here.DiskMiB, config)
	}
	compare("the agent's transport", n.Transport, here.Transport, "vsock must be usable exactly if it was then: sandbox doctor tells")
	compare("the network", n.Network, here.Network, config)
	compare("the list of shares", n.Shares, here.Shares, config)
	return list
}

// Snapshot returns the snapshot with that tag.
func (s *Sandbox) Snapshot(tag string) (Snapshot, error) {
	var snap Snapshot
	if err := layout.CheckTag(tag); err != nil {
		return snap, err
	}
	err := readManifest(filepath.Join(s.Files().Snapshot(tag), manifestFile), &snap)
	if errors.Is(err, os.ErrNotExist) {
		return snap, fmt.Errorf("the sandbox %s has no snapshot %s: sandbox snapshot ls %[1]s shows those that it has", s.Name, tag)
	}
	return snap, err
}

func readManifest(path string, snap *Snapshot) error {
	err := durable.ReadJSON(path, snap)
	if err == nil && snap.Version != snapshotVersion {
		err = fmt.Errorf("the snapshot %s has version %d of its form, and this program knows version %d only: use the program that saved it", snap.Tag, snap.Version, snapshotVersion)
	}
	return err
}

// Snapshots lists the sandbox's snapshots, the oldest first. The error tells
// of those that cannot be read; the others are returned all the same.
func (s *Sandbox) Snapshots() ([]Snapshot, error) {
	entries, err := os.ReadDir(s.Files().Snapshots())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Snapshot
	var errs []error
	for _, e := range entries {
		if layout.CheckTag(e.Name()) != nil {
			continue // half made or half removed
		}
		snap, err := s.Snapshot(e.Name())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, snap)
	}
	slices.SortFunc(all, func(a, b Snapshot) int { return a.Created.Compare(b.Created) })
	return all, errors.Join(errs...)
}

// RemoveSnapshot deletes a snapshot. No other depends on it.
func (s *Sandbox) RemoveSnapshot(tag string) error {
	if err := layout.CheckTag(tag); err != nil {
		return err
	}
	doomed := filepath.Join(s.Files().Snapshots(), durable.HiddenName(durable.RemovedPrefix, tag))
	err := os.Rename(s.Files().Snapshot(tag), doomed)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("the sandbox %s has no snapshot %s: sandbox snapshot ls %[1]s shows those that it has", s.Name, tag)
	}
	if err != nil {
		return fmt.Errorf("removing the snapshot %s: %w", tag, err)
	}
	return tree.Remove(doomed)
}

// VerifySnapshot reads the whole snapshot and tells whether it is what was
// saved, and whether its disk can be opened.
func (s *Sandbox) VerifySnapshot(ctx context.Context, snap Snapshot) error {
	for name, want := range snap.files() {
		path := filepath.Join(s.Files().Snapshot(snap.Tag), name)
		got, err := checksum(ctx, path)
		if err != nil {
			return fmt.Errorf("verifying the snapshot %s: %w", snap.Tag, err)
		}
		if got != want.Checksum {
			return fmt.Errorf("the snapshot %s is damaged: %s is not what was saved; sandbox snapshot rm %s %[1]s removes it", snap.Tag, path, s.Name)
		}
	}
	if len(snap.Disk) == 0 {
		return nil
	}
	_, _, err := layers(filepath.Join(s.Files().Snapshot(snap.Tag), layout.DiskDir)).check()
	return s.explainSnapshot(snap.Tag, err)
}

// explainSnapshot says what to do about a snapshot whose disk is not opened.
func (s *Sandbox) explainSnapshot(tag string, err error) error {
	if _, ok := errors.AsType[*qemu.LayerError](err); ok {
		return fmt.Errorf("the snapshot %s cannot be used: %w\nRemedy: sandbox snapshot rm %s %[1]s removes it", tag, err, s.Name)
	}
	return err
}

// sweepLeftovers deletes what a save or a removal that was killed has left.
// Only the supervisor saves, so it must not be doing so.
func (v *supervisor) sweepLeftovers() {
	for _, dir := range []string{v.s.Files().Dir(), v.s.Files().Snapshots()} {
		entries, _ := os.ReadDir(dir) // no directory, no leftovers
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), durable.DraftPrefix) && !strings.HasPrefix(e.Name(), durable.RemovedPrefix) {
				continue
			}
			if err := tree.Remove(filepath.Join(dir, e.Name())); err != nil {
				v.log.Warn("a leftover cannot be deleted", "err", err)
			}
		}
	}
}

// describeFile measures a file of a snapshot.
func describeFile(ctx context.Context, path string) (SnapshotFile, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return SnapshotFile{}, fmt.Errorf("measuring %s: %w", path, err)
	}
	sum, err := checksum(ctx, path)
	return SnapshotFile{
		Size: st.Size, Used: st.Blocks * 512, // the unit of st_blocks (stat(2))
		Checksum: sum, Modified: time.Unix(st.Mtim.Unix()).UTC(),
	}, err
}

// unwritten tells whether nobody has written to the file at path since it was
// described, which costs nothing, unlike its checksum.
func (f SnapshotFile) unwritten(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() != f.Size || !info.ModTime().Equal(f.Modified) {
		return fmt.Errorf("%s is not what was saved: somebody has written to it", path)
	}
	return nil
}

// processor says what executes the guest, as far as a snapshot depends on it.
// Under KVM it is the host's own, with what that can do.
func processor(accel qemu.Accel) (string, error) {
	if accel == qemu.AccelTCG {
		return "emulated", nil
	}
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", fmt.Errorf("asking what processor this is: %w", err)
	}
	return hostProcessor(string(data)), nil
}

// hostProcessor takes the content of /proc/cpuinfo (proc_cpuinfo(5)).
func hostProcessor(cpuinfo string) string {
	var model string
	features := sha256.New()
	first, _, _ := strings.Cut(cpuinfo, "\n\n")
	for line := range strings.Lines(first) {
		key, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(key) {
		case "model name", "CPU part":
			model = strings.TrimSpace(value)
		case "flags", "Features":
			features.Write([]byte(value))
		}
	}
	return fmt.Sprintf("%s with the features %x", model, features.Sum(nil)[:6])
}
