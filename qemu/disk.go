package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// FindImg returns the path of qemu-img: the one beside the QEMU binary, which has the same version, or
// else the one in $PATH. The error names the package to install.
func FindImg(binary string) (string, error) {
	const name = "qemu-img"
	places := []string{filepath.Join(filepath.Dir(binary), name), name}
	if target, err := filepath.EvalSymlinks(binary); err == nil {
		places = append([]string{filepath.Join(filepath.Dir(target), name)}, places...)
	}
	for _, place := range places {
		if path, err := exec.LookPath(place); err == nil {
			return filepath.Abs(path)
		}
	}
	return "", fmt.Errorf("%s, which makes the disk, is not installed (neither beside %s nor in $PATH): install the package qemu-utils (Debian, Ubuntu) or qemu-img (Fedora)", name, binary)
}

// CreateDisk makes an empty qcow2 image of sizeMiB at path, which must be absolute, with qemu-img at
// img. The image takes some 200 KiB at first and grows with what is written to it. Either the whole
// image is at path afterwards or what was there before; that is replaced.
func CreateDisk(ctx context.Context, img, path string, sizeMiB int) error {
	return createImage(ctx, img, path, strconv.Itoa(sizeMiB)+"M")
}

// CreateLayer is CreateDisk for an image that shows what the one called backing shows, which must be in the same
// directory, until it is written to. The lower one must not be changed any more.
func CreateLayer(ctx context.Context, img, path, backing string) error {
	return createImage(ctx, img, path, "-F", "qcow2", "-b", backing)
}

// MergeLayer writes what the image at path holds into the one below it, which nothing else may be above. Both
// show the same afterwards, and also whenever this ends early; the upper one can then be removed.
func MergeLayer(ctx context.Context, img, path string) error {
	return runImg(ctx, img, "commit", "-q", path)
}

// GrowDisk makes the uppermost image of a disk, which no QEMU may have open, sizeMiB large. A smaller size than it
// has is an error, and the same size changes nothing.
func GrowDisk(ctx context.Context, img, path string, sizeMiB int) error {
	return runImg(ctx, img, "resize", "-q", "-f", "qcow2", path, strconv.Itoa(sizeMiB)+"M")
}

// createImage makes an image of the options and size that qemu-img create takes after its file's name.
func createImage(ctx context.Context, img, path string, what ...string) error {
	fresh := path + ".new"
	// An early end of ours may have left one, and its size would be kept.
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("making the disk: %w", err)
	}
	if err := runImg(ctx, img, append([]string{"create", "-q", "-f", "qcow2", fresh}, what...)...); err != nil {
		return errors.Join(fmt.Errorf("making the disk %s: %w", path, err), os.RemoveAll(fresh))
	}
	if err := publish(fresh, path); err != nil {
		return errors.Join(fmt.Errorf("making the disk: %w", err), os.RemoveAll(fresh))
	}
	return nil
}

func runImg(ctx context.Context, img string, args ...string) error {
	if out, err := exec.CommandContext(ctx, img, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", img, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// publish gives a finished file its name, so that not even a crash of the host leaves half of it there.
func publish(fresh, path string) error {
	f, err := os.OpenFile(fresh, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o600), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}
