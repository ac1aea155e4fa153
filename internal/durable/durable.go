// Package durable changes files and directories in single steps, so that a crash,
// a kill or a full disk at any moment leaves the old or the new, and never a part.
package durable

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/sparse"
	"github.com/sourcery-zone/sandbox/internal/tree"
)

// What is being made or removed has one of these prefixes, until it has its own
// name or is gone.
const (
	DraftPrefix   = ".new-"
	RemovedPrefix = ".removed-"
)

// HiddenName is a name with the prefix that nobody else has, for what is to be called
// name or was called so.
func HiddenName(prefix, name string) string { return prefix + name + "-" + rand.Text()[:8] }

// RemoveDir removes a directory in one step, if it is there: what is left of it
// after an early end is nobody's.
func RemoveDir(dir string) error {
	doomed := filepath.Join(filepath.Dir(dir), HiddenName(RemovedPrefix, filepath.Base(dir)))
	err := os.Rename(dir, doomed)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return tree.Remove(doomed)
}

// Link gives a file that never changes another name, or where that
// cannot be done a copy.
func Link(ctx context.Context, from, to string) error {
	err := os.Link(from, to)
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EMLINK) {
		err = Clone(ctx, from, to)
		if err == nil {
			err = Sync(to)
		}
	}
	return err
}

// MoveDir never replaces what is at to, not even an empty directory: another
// command may be about to fill it.
func MoveDir(from, to string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE); err != nil {
		return &os.LinkError{Op: "renameat2", Old: from, New: to, Err: err}
	}
	return nil
}

// ReplaceDir makes from what was called to in one step, and removes what was
// there before, if anything was.
func ReplaceDir(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.ENOENT) {
		return os.Rename(from, to)
	}
	if err != nil {
		return &os.LinkError{Op: "renameat2", Old: from, New: to, Err: err}
	}
	return RemoveDir(from)
}

// Clone makes dst, which must not exist, a copy of src that shares its
// blocks where the file system can do that, and its holes elsewhere. It is not
// on disk for good before Sync.
func Clone(ctx context.Context, src, dst string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = sparse.Clone(ctx, in, out)
	if err = errors.Join(err, out.Close()); err != nil {
		return errors.Join(fmt.Errorf("copying %s: %w", src, err), os.Remove(dst))
	}
	return nil
}

// Sync puts what is in a file or directory on disk for good.
func Sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func Exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
