// Package flock takes locks of flock(2). A lock belongs to an open file: a child
// that inherits the file inherits the lock, and the kernel gives it up when the
// last process that has the file has ended, however it did.
package flock

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ErrLocked says that somebody else owns a lock.
var ErrLocked = errors.New("locked by another process")

// Try takes the lock at path, which must exist unless create is set, and fails
// with [ErrLocked] when it is owned. The caller gives it up with [Unlock].
func Try(path string, create bool) (*os.File, error) {
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE
	}
	for {
		f, err := os.OpenFile(path, flags, 0o600)
		if err != nil {
			return nil, err
		}
		if err := own(f); err != nil {
			f.Close()
			return nil, err
		}
		// The file may have been removed between open and lock: then the
		// lock is on a name that is gone, and whoever made a new one
		// would hold a different lock.
		if same, err := stillThere(f, path); err != nil || same {
			return f, err
		}
		f.Close()
	}
}

// Unlock gives a lock up at once, and closes its file. Closing alone would not
// do while another goroutine starts a process: until that executes its program,
// it has a copy of the file.
func Unlock(f *os.File) error {
	return errors.Join(wait(f, unix.LOCK_UN), f.Close())
}

// own locks f for its only owner. Those who merely ask for the lock, or
// wait for its release, share it for a moment, and must not be taken for an
// owner.
func own(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("locking %s: %w", f.Name(), err)
		}
		if owned, err := Owned(f); err != nil || owned {
			return errors.Join(err, ErrLocked)
		}
		runtime.Gosched() // whoever shares it is about to close it
	}
}

// Owned tells whether another open file owns the lock of f, and leaves f
// without a lock.
func Owned(f *os.File) (bool, error) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_UN)
	}
	if err != nil {
		return false, fmt.Errorf("asking for the lock %s: %w", f.Name(), err)
	}
	return false, nil
}

func stillThere(f *os.File, path string) (bool, error) {
	mine, err := f.Stat()
	if err != nil {
		return false, err
	}
	now, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return os.SameFile(mine, now), nil
}

// Wait takes the lock at path, made when absent, and waits for it, however long
// its owner keeps it. If the owner has it already, waiting is called first, unless
// that is nil. The caller gives it up with [Unlock].
func Wait(path string, waiting func()) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if waiting != nil {
		switch err := own(f); {
		case err == nil:
			return f, nil
		case !errors.Is(err, ErrLocked):
			f.Close()
			return nil, err
		}
		waiting()
	}
	if err := wait(f, unix.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// AwaitRelease returns when nobody owns the lock of f, which it leaves without one
// and closes.
func AwaitRelease(f *os.File) error { return errors.Join(wait(f, unix.LOCK_SH), f.Close()) }

// wait waits for the lock of f, to own it (LOCK_EX) or to share it (LOCK_SH), and
// goes on when a signal interrupts it: Go's runtime sends itself many.
func wait(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("locking %s: %w", f.Name(), err)
		}
	}
}
