package machine

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

	"github.com/sourcery-zone/sandbox/qemu"
)

// layers is a directory with the layers of a disk: 0.qcow2 is the lowest, and
// the one with the highest number is written to. The others never change, so
// snapshots and forks have them as hard links, and whoever goes last takes the
// data along. A layer names the one below it without a directory, so the files
// are a whole disk for qemu-img, too, wherever they are linked.
type layers string

const layerSuffix = ".qcow2"

func (l layers) path(number int) string {
	return filepath.Join(string(l), strconv.Itoa(number)+layerSuffix)
}

// all lists the layers' files, the lowest first. A disk that was never made has
// none.
func (l layers) all() ([]string, error) {
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
		if _, err := os.Lstat(l.path(i)); err != nil {
			return nil, fmt.Errorf("the disk lacks a layer: %w", err)
		}
		files = append(files, l.path(i))
	}
	return files, nil
}

// used is what all layers together take on the host, in bytes.
func (l layers) used() int64 {
	files, _ := l.all() // what is not there takes nothing
	var used int64
	for _, f := range files {
		var stat unix.Stat_t
		if err := unix.Stat(f, &stat); err == nil {
			used += stat.Blocks * 512 // the unit of st_blocks, whatever the file system's (stat(2))
		}
	}
	return used
}

// drive is the disk as QEMU has it.
func (l layers) drive() (qemu.Drive, error) {
	files, err := l.all()
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("there is no disk in %s", l)
	}
	if err != nil {
		return qemu.Drive{}, err
	}
	top := len(files) - 1
	return qemu.Drive{ID: diskID, Path: files[top], Backing: files[:top], Format: "qcow2", Serial: diskSerial}, nil
}

// add puts an empty layer on top, in one step. img is qemu-img.
func (l layers) add(ctx context.Context, img string) error {
	files, err := l.all()
	if err != nil {
		return err
	}
	return qemu.CreateLayer(ctx, img, l.path(len(files)), filepath.Base(files[len(files)-1]))
}

// linkTo makes another directory, which must not exist, with the lowest count
// layers.
func (l layers) linkTo(ctx context.Context, to layers, count int) error {
	if err := os.Mkdir(string(to), 0o700); err != nil {
		return err
	}
	for i := range count {
		if err := linkOrClone(ctx, l.path(i), to.path(i)); err != nil {
			return err
		}
	}
	return syncPath(string(to))
}

// linkOrClone gives a file that never changes another name, or where that
// cannot be done a copy.
func linkOrClone(ctx context.Context, from, to string) error {
	err := os.Link(from, to)
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EMLINK) {
		err = cloneFile(ctx, from, to)
		if err == nil {
			err = syncPath(to)
		}
	}
	return err
}

// merge unites the uppermost layers that no snapshot and no fork has any more.
// It must not be in use. At any early end the disk is what it was.
func (l layers) merge(ctx context.Context, img string) error {
	files, err := l.all()
	if err != nil {
		return err
	}
	for _, below := range slices.Backward(files[:max(0, len(files)-1)]) {
		var stat unix.Stat_t
		if err := unix.Stat(below, &stat); err != nil {
			return err
		}
		if stat.Nlink > 1 {
			return nil
		}
		top := files[len(files)-1]
		if err := qemu.MergeLayer(ctx, img, top); err != nil {
			return fmt.Errorf("uniting the layers of the disk: %w", err)
		}
		if err := errors.Join(syncPath(below), os.Remove(top)); err != nil {
			return err
		}
		files = files[:len(files)-1]
	}
	return nil
}
