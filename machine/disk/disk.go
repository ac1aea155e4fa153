// Package disk is a writable disk of a sandbox: a stack of qcow2 images, of which
// snapshots, forks and the store of caches keep the lower ones.
//
// QEMU writes to the images, and a guest may have taken it over. So nothing here
// believes their headers before Check did, and nothing but QEMU itself, confined,
// changes what is in them.
package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/qmp"
)

// A Disk is one that a sandbox has. Its name is that of its directory, of the drive in
// QEMU, and the serial number by which the guest finds it among its drives: the guest is
// told it, so that it never takes a disk that is late for one that is absent.
type Disk struct {
	Name  string
	MiB   int
	Cache string // the directory of the guest that it keeps for later sandboxes; empty: it is the sandbox's own
}

// Layers is a directory with the layers of a disk: 0.qcow2 is the lowest, and
// the one with the highest number is written to. The others never change, so
// snapshots and forks have them as hard links, and whoever goes last takes the
// data along. A layer names the one below it without a directory, so the files
// are a whole disk for other programs, too, wherever they are linked.
type Layers string

const layerSuffix = ".qcow2"

// File is the file of the layer with that number.
func (l Layers) File(number int) string {
	return filepath.Join(string(l), strconv.Itoa(number)+layerSuffix)
}

// All lists the layers' files, the lowest first. A disk that was never made has
// none.
func (l Layers) All() ([]string, error) {
	entries, err := os.ReadDir(string(l))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	count := 0
	for _, e := range entries {
		name, found := strings.CutSuffix(e.Name(), layerSuffix)
		if _, err := strconv.Atoi(name); found && err == nil {
			count++
		}
	}
	var files []string
	for i := range count {
		if _, err := os.Lstat(l.File(i)); err != nil {
			return nil, fmt.Errorf("the disk lacks a layer: %w", err)
		}
		files = append(files, l.File(i))
	}
	return files, nil
}

// Used is what all layers together take on the host, in bytes.
func (l Layers) Used() int64 {
	files, _ := l.All() // what is not there takes nothing
	var used int64
	for _, f := range files {
		var stat unix.Stat_t
		if err := unix.Stat(f, &stat); err == nil {
			used += stat.Blocks * 512 // the unit of st_blocks, whatever the file system's (stat(2))
		}
	}
	return used
}

// Check lists the layers' files, and tells how large the disk is, in bytes, once
// nothing is wrong with what QEMU wrote to their headers.
func (l Layers) Check() (files []string, size int64, err error) {
	files, err = l.All()
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("there is no disk in %s", l)
	}
	if err == nil {
		size, err = qemu.CheckDisk(files)
	}
	return files, size, err
}

// Drive is the disk of that name and these files as QEMU has it, with as many of the
// layers below the uppermost one open for writing.
func Drive(name string, files []string, mergeable int) qemu.Drive {
	top := len(files) - 1
	return qemu.Drive{ID: name, Path: files[top], Backing: files[:top], Format: "qcow2", Serial: name, Mergeable: mergeable}
}

// Add puts an empty layer on top, in one step, and lists all files.
func (l Layers) Add() ([]string, error) {
	files, size, err := l.Check()
	if err != nil {
		return nil, err
	}
	top := len(files)
	return append(files, l.File(top)), qemu.CreateLayer(l.File(top), filepath.Base(files[top-1]), size)
}

// LinkTo makes another directory, which must not exist, with the lowest count
// Layers.
func (l Layers) LinkTo(ctx context.Context, to Layers, count int) error {
	if err := os.Mkdir(string(to), 0o700); err != nil {
		return err
	}
	for i := range count {
		if err := durable.Link(ctx, l.File(i), to.File(i)); err != nil {
			return err
		}
	}
	return durable.Sync(string(to))
}

// maxDepth is how many layers a disk has at most of which others have some: each is one more
// place in which QEMU looks for a block.
const maxDepth = 8

// Claim makes the uppermost layer one that nobody else has, and lists all files. Where others
// have made a disk as deep as that, it gets copies of its own, which Merge can unite.
func (l Layers) Claim(ctx context.Context) ([]string, error) {
	files, err := l.All()
	if err != nil {
		return nil, err
	}
	shared, err := shared(files[len(files)-1])
	if err != nil || !shared {
		return files, err
	}
	for _, file := range files {
		if len(files) < maxDepth {
			break
		}
		fresh := file + ".own"
		err := os.RemoveAll(fresh) // an early end of ours may have left one
		if err == nil {
			err = durable.Clone(ctx, file, fresh)
		}
		if err == nil {
			err = durable.Sync(fresh)
		}
		if err == nil {
			err = os.Rename(fresh, file)
		}
		if err != nil {
			return nil, fmt.Errorf("copying a layer of the disk: %w", err)
		}
	}
	return l.Add()
}

// shared tells whether a layer has another name, in a snapshot, a fork or the store of caches.
func shared(file string) (bool, error) {
	var stat unix.Stat_t
	err := unix.Stat(file, &stat)
	return stat.Nlink > 1, err
}

// Mergeable counts the layers right below the uppermost one that no snapshot and
// no fork has any more.
func Mergeable(files []string) (count int, err error) {
	for _, below := range slices.Backward(files[:len(files)-1]) {
		shared, err := shared(below)
		if err != nil {
			return 0, err
		}
		if shared {
			break
		}
		count++
	}
	return count, nil
}

// Merge unites the uppermost layers of the disk of that name, as many as are mergeable.
// The guest must stand still. At any early end, the disk shows what it did, and the
// next start goes on with what is left.
func Merge(ctx context.Context, monitor *qmp.Client, name string, files []string, count int) error {
	for ; count > 0; count-- {
		top := len(files) - 1
		err := monitor.MergeLayer(ctx, qemu.LayerNode(name, top), qemu.LayerNode(name, top-1))
		if err == nil {
			err = durable.Sync(files[top-1])
		}
		if err == nil {
			err = removeEmptied(files[top])
		}
		if err != nil {
			return fmt.Errorf("uniting the layers of the disk: %w", err)
		}
		files = files[:top]
	}
	return nil
}

// removeEmptied removes a file that QEMU has inherited, whose space it would
// otherwise take until it ends.
func removeEmptied(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.Remove(path); err != nil {
		return err
	}
	return f.Truncate(0)
}
