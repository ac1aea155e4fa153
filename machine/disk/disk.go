// Package disk is the writable disk of a sandbox: a stack of qcow2 images, of which
// snapshots and forks keep the lower ones.
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

// Serial is how the guest finds the disk among its drives: by its serial
// number, which the kernel command line repeats, so that a guest never takes a
// disk that is late for one that is absent.
const Serial = "disk"

// ID is the disk's name in QEMU.
const ID = "disk"

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

// Drive is the disk of these files as QEMU has it, with as many of the layers
// below the uppermost one open for writing.
func Drive(files []string, mergeable int) qemu.Drive {
	top := len(files) - 1
	return qemu.Drive{ID: ID, Path: files[top], Backing: files[:top], Format: "qcow2", Serial: Serial, Mergeable: mergeable}
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

// Mergeable counts the layers right below the uppermost one that no snapshot and
// no fork has any more.
func Mergeable(files []string) (count int, err error) {
	for _, below := range slices.Backward(files[:len(files)-1]) {
		var stat unix.Stat_t
		if err := unix.Stat(below, &stat); err != nil {
			return 0, err
		}
		if stat.Nlink > 1 {
			break
		}
		count++
	}
	return count, nil
}

// Merge unites the uppermost layers of a disk, as many as are mergeable. The
// guest must stand still. At any early end, the disk shows what it did, and the
// next start goes on with what is left.
func Merge(ctx context.Context, monitor *qmp.Client, files []string, count int) error {
	for ; count > 0; count-- {
		top := len(files) - 1
		err := monitor.MergeLayer(ctx, qemu.LayerNode(ID, top), qemu.LayerNode(ID, top-1))
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
