package qemu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/qemu/qcow2"
)

// CreateDisk makes an empty qcow2 image of a disk of size bytes at path. The image takes some 20 KiB at first and grows
// with what is written to it. Either the whole image is at path afterwards or what was there before; that is replaced.
func CreateDisk(path string, size int64) error { return createImage(path, size, "") }

// CreateLayer is CreateDisk for an image that shows what the one called below shows, which must be in the same
// directory, until it is written to. The lower one must not be changed any more.
func CreateLayer(path, below string, size int64) error { return createImage(path, size, below) }

func createImage(path string, size int64, below string) error {
	image, err := qcow2.Empty(size, below)
	if err != nil {
		return fmt.Errorf("making the disk %s: %w", path, err)
	}
	fresh := path + ".new"
	if err := writeImage(fresh, image); err != nil {
		return errors.Join(fmt.Errorf("making the disk %s: %w", path, err), os.RemoveAll(fresh))
	}
	if err := os.Rename(fresh, path); err != nil {
		return errors.Join(fmt.Errorf("making the disk: %w", err), os.RemoveAll(fresh))
	}
	return nil
}

// block is what a file system allocates at least.
const block = 4 << 10

// writeImage writes what is not zero, for good, so that not even a crash of the host leaves half of it under the name
// that the file is given then.
func writeImage(path string, image []byte) error {
	// An early end of ours may have left one.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	errs := []error{f.Chmod(0o600), f.Truncate(int64(len(image)))}
	zeroes := string(make([]byte, block))
	for at := 0; at < len(image); at += block {
		if part := image[at:min(at+block, len(image))]; string(part) != zeroes[:len(part)] {
			_, err := f.WriteAt(part, int64(at))
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, f.Sync(), f.Close())...)
}

// A LayerError says which layer of a disk is not opened. Nothing of it was used.
type LayerError struct {
	Path string
	Err  *qcow2.HeaderError
}

func (e *LayerError) Error() string {
	return fmt.Sprintf("the disk's layer %s is not what it was made as, so it is not opened: %v. Whatever ran in the sandbox, and perhaps took over its QEMU, may have changed it", e.Path, e.Err)
}

func (e *LayerError) Unwrap() error { return e.Err }

// CheckDisk judges the headers of a disk's layers, the lowest first, and returns how large the disk is, in bytes. What it
// refuses is a *LayerError.
func CheckDisk(paths []string) (size int64, err error) {
	below := ""
	for _, path := range paths {
		var f *os.File
		if f, size, err = openLayer(path, below, false); err != nil {
			return 0, err
		}
		f.Close() // it was only read
		below = filepath.Base(path)
	}
	return size, nil
}

// openLayer opens a qcow2 image above the one called below, once its header says nothing else, and returns the size of
// the disk that it holds.
func openLayer(path, below string, writable bool) (_ *os.File, size int64, err error) {
	flags := os.O_RDONLY
	if writable {
		flags = os.O_RDWR
	}
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0) // whoever could put a link or fifo there
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, &LayerError{path, &qcow2.HeaderError{Reason: "it is no file"}}
	}
	size, err = qcow2.Check(f, below)
	if refused, ok := errors.AsType[*qcow2.HeaderError](err); ok {
		err = &LayerError{path, refused}
	}
	return f, size, err
}

// LayerNode is how the monitor calls a layer of a drive; the lowest is number 0.
func LayerNode(drive string, number int) string { return drive + "-" + strconv.Itoa(number) }
