// Package snapshot is the saved state of a sandbox on disk: what it consists of, what
// a machine must be like to go on from it, and whether it is still what was saved.
package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/tree"
	"github.com/sourcery-zone/sandbox/machine/disk"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/qemu"
)

// Names within a snapshot's directory.
const (
	manifestFile = "manifest.json" // Manifest; what has none is no snapshot
	MemoryFile   = "memory"        // the guest's memory, page by page
	DevicesFile  = "devices"       // the rest of the machine, as qmp.Client.SaveState writes it
	// and layout.HomeDir, if the snapshot has the home; directories of the disks, if the sandbox has any, with their
	// layers; layout.ClientKey, which opens the agent that is in the memory; and layout.WorkspaceFile and layout.MergeBases,
	// which machine.Sandbox.SaveWorkspaces writes, but not in templates and in older snapshots
)

// Version is that of the manifest, and of the devices that every machine has. Read
// refuses newer ones, and those older than oldest.
const (
	Version = 4 // 3 was without Needs.SerialPorts
	oldest  = 2 // without Needs.Ports
)

// Manifest is the state of a running sandbox at one moment: its memory, its
// devices and its disk. Home and shares are on the host, and no part of it.
type Manifest struct {
	Version  int           `json:"version"`
	Tag      string        `json:"tag"`
	Created  time.Time     `json:"created"`
	Pause    time.Duration `json:"pause"` // nanoseconds for which the guest stood still
	Needs    Needs         `json:"needs"`
	Template bool          `json:"template,omitempty"` // it belongs to nobody: see machine.Template
	Devices  File          `json:"devices"`
	// Memory is nil if it is a part of Devices, as that of a machine is which
	// shares memory with other forks.
	Memory *File `json:"memory,omitempty"`
	// Home is the copy of the home, if one was asked for. It has no checksum.
	Home *Home `json:"home,omitempty"`
	// Disk are the layers of the disk, the lowest first.
	Disk []File `json:"disk,omitempty"`
	// Caches are those of the disks of its caches.
	Caches [][]File `json:"caches,omitempty"`
}

// Home is a copy of the home in a snapshot.
type Home struct {
	Used int64 `json:"used"` // what it would take on the host if it shared nothing, in bytes
}

// File is one file of a snapshot.
type File struct {
	Size     int64  `json:"size"`
	Used     int64  `json:"used"`     // what it takes on the host when it is saved
	Checksum string `json:"checksum"` // of what is not zero in it: see Checksum

	// Modified is when it was last written to. Only its owner, which no QEMU is,
	// could make it say otherwise.
	Modified time.Time `json:"modified,omitzero"`
}

// Used is what the snapshot takes on the host, in bytes, besides the layers of
// the disk that it has in common with older ones.
func (s Manifest) Used() int64 {
	used := s.MemoryUsed() + s.DiskUsed()
	if s.Home != nil {
		used += s.Home.Used
	}
	return used
}

// MemoryUsed is the part of memory and devices in Used.
func (s Manifest) MemoryUsed() int64 {
	used := s.Devices.Used
	if s.Memory != nil {
		used += s.Memory.Used
	}
	return used
}

// DiskUsed is the part of the disks in Used.
func (s Manifest) DiskUsed() int64 {
	var used int64
	for _, layers := range s.Disks() {
		used += layers[len(layers)-1].Used
	}
	return used
}

// Disks are the layers of all disks, by their names.
func (s Manifest) Disks() map[string][]File {
	all := map[string][]File{}
	if len(s.Disk) > 0 {
		all[layout.DiskDir] = s.Disk
	}
	for i, layers := range s.Caches {
		if len(layers) > 0 {
			all[layout.CacheDir(i)] = layers
		}
	}
	return all
}

// Files are the snapshot's files by their paths in its directory.
func (s Manifest) Files() map[string]File {
	files := map[string]File{DevicesFile: s.Devices}
	if s.Memory != nil {
		files[MemoryFile] = *s.Memory
	}
	for name, layers := range s.Disks() {
		for i, layer := range layers {
			files[disk.Layers(name).File(i)] = layer
		}
	}
	return files
}

// Read reads the manifest in a snapshot's directory.
func Read(dir string) (snap Manifest, err error) {
	err = durable.ReadJSON(filepath.Join(dir, manifestFile), &snap)
	if err == nil && (snap.Version < oldest || snap.Version > Version) {
		err = fmt.Errorf("the snapshot %s has version %d of its form, and this program knows the versions %d to %d: use the program that saved it", snap.Tag, snap.Version, oldest, Version)
	}
	if snap.Version < 4 {
		snap.Needs.SerialPorts = qemu.ManySerialPorts
	}
	return snap, err
}

// Write makes the directory, which has all other files of it, a snapshot.
func Write(dir string, snap Manifest) error {
	return durable.WriteJSON(filepath.Join(dir, manifestFile), snap)
}

// Unwritten tells whether nobody has written to the file at path since it was
// described, which costs nothing, unlike its checksum.
func (f File) Unwritten(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() != f.Size || !info.ModTime().Equal(f.Modified) {
		return fmt.Errorf("%s is not what was saved: somebody has written to it", path)
	}
	return nil
}

// Link gives the files of a snapshot other names in the directory to,
// which is made: they take no space of their own.
func Link(ctx context.Context, from, to string, snap Manifest) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	names := []string{DevicesFile, layout.ClientKey}
	if snap.Memory != nil {
		names = append(names, MemoryFile)
	}
	if durable.Exists(filepath.Join(from, layout.WorkspaceFile)) {
		names = append(names, layout.WorkspaceFile)
	}
	for _, name := range names {
		if err := durable.Link(ctx, filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			return err
		}
	}
	for name, files := range snap.Disks() {
		layers := disk.Layers(filepath.Join(from, name))
		if err := layers.LinkTo(ctx, disk.Layers(filepath.Join(to, name)), len(files)); err != nil {
			return err
		}
	}
	if bases := filepath.Join(from, layout.MergeBases); durable.Exists(bases) {
		if err := tree.Copy(ctx, bases, filepath.Join(to, layout.MergeBases), func(string) {}); err != nil {
			return err
		}
	}
	return errors.Join(Write(to, snap), durable.Sync(to))
}

// Sync puts a snapshot's files on the disk for good.
func Sync(dir string, snap Manifest) error {
	paths := []string{layout.ClientKey}
	for name := range snap.Files() {
		paths = append(paths, name)
	}
	for _, name := range paths {
		if err := durable.Sync(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
	return nil
}

// Publish gives a finished snapshot its directory, for good. What is there
// already stays.
func Publish(draft, dir string) error {
	if err := durable.Sync(draft); err != nil {
		return err
	}
	if err := durable.MoveDir(draft, dir); err != nil {
		return err
	}
	return durable.Sync(filepath.Dir(dir))
}
