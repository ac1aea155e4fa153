package machine

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// errLocked says that somebody else holds a lock.
var errLocked = errors.New("locked by another process")

// tryLock takes the lock at path, which must exist unless create is set, and
// fails with errLocked when it is held. The lock belongs to the open file, so
// a child that inherits the file inherits the lock. The caller closes it.
func tryLock(path string, create bool) (*os.File, error) {
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE
	}
	for {
		f, err := os.OpenFile(path, flags, 0o600)
		if err != nil {
			return nil, err
		}
		if err := ownLock(f); err != nil {
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

// unlock gives a lock up at once, and closes its file. Closing alone would not
// do while another goroutine starts a process: until that executes its program,
// it has a copy of the file.
func unlock(f *os.File) error {
	return errors.Join(flock(f, unix.LOCK_UN), f.Close())
}

// ownLock locks f for its only owner. Those who merely ask for the lock, or
// wait for its release, share it for a moment, and must not be taken for an
// owner.
func ownLock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("locking %s: %w", f.Name(), err)
		}
		if owned, err := lockOwned(f); err != nil || owned {
			return errors.Join(err, errLocked)
		}
		runtime.Gosched() // whoever shares it is about to close it
	}
}

// lockOwned tells whether another open file owns the lock of f, and leaves f
// without a lock.
func lockOwned(f *os.File) (bool, error) {
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

// waitLock takes the lock at path, made when absent, and waits for it. The
// caller closes it.
func waitLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f, unix.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// flock waits for the lock of f, to own it (LOCK_EX) or to share it (LOCK_SH).
func flock(f *os.File, how int) error {
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
