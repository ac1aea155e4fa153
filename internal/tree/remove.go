package tree

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Remove deletes what is at path, with all that is in it, also directories that
// their owner cannot enter. That there is nothing is no error. What cannot be
// deleted does not keep it from deleting the rest.
func Remove(path string) error {
	err := os.Remove(path)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	// A file system that counts its names anew may skip some when others were
	// removed.
	for range removePasses {
		if err = removeDir(path); err == nil {
			return nil
		}
	}
	return err
}

const removePasses = 3

func removeDir(path string) error {
	c, _, err := openRoot(path)
	if err != nil {
		return err
	}
	defer c.close()
	if err := makeWritable(c.fd()); err != nil {
		return &os.PathError{Op: "chmod", Path: path, Err: err}
	}
	r := &remover{}
	if err := walk(context.Background(), c, r); err != nil {
		r.note(err)
	}
	if len(r.errs) > 0 {
		return fmt.Errorf("removing %s: %w", path, errors.Join(r.errs...))
	}
	return os.Remove(path)
}

func makeWritable(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	return makeUsable(fd, &st, 0o700)
}

// remover is the visitor of the tree that is removed.
type remover struct{ errs []error }

// maxErrors is how many reasons people want to read.
const maxErrors = 10

func (r *remover) note(err error) {
	if len(r.errs) < maxErrors {
		r.errs = append(r.errs, err)
	}
}

func (r *remover) failed(_ string, err error) error {
	r.note(err)
	return nil
}

func (r *remover) enter(e *entry) error {
	if err := makeUsable(e.fd, &e.st, 0o700); err != nil {
		r.note(e.failed(err))
		return errPassOver
	}
	return nil
}

func (r *remover) leave(e *entry) error { return r.unlink(e, unix.AT_REMOVEDIR) }
func (r *remover) other(e *entry) error { return r.unlink(e, 0) }

func (r *remover) unlink(e *entry, flags int) error {
	if err := unix.Unlinkat(e.chain.fd(), e.name, flags); err != nil && !errors.Is(err, unix.ENOENT) {
		r.note(e.failed(err))
	}
	return nil
}
