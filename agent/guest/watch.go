//go:build linux

package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// waitForPath returns when path exists. It is woken by the file system, so it
// suits devtmpfs and tmpfs, but not sysfs or proc, which tell nobody.
func waitForPath(ctx context.Context, path string) error {
	return watch(ctx, path, func() bool {
		_, err := os.Lstat(path)
		return err == nil
	})
}

// watch calls look until it returns true: at first, and then each time that
// something appears in the directory of path or, while that does not exist,
// in the nearest one above it.
func watch(ctx context.Context, path string, look func() bool) error {
	for {
		done, err := watchOnce(ctx, path, look)
		if done || err != nil {
			return err
		}
	}
}

// watchOnce returns the answer of look if that is true, and otherwise returns
// after something has appeared.
func watchOnce(ctx context.Context, path string, look func() bool) (bool, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return false, fmt.Errorf("cannot watch for %s: %w", path, err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	defer events.Close()
	next, err := watchParent(fd, path)
	if err != nil {
		return false, err
	}
	// Looking after the watch is set leaves no gap between the two.
	if look() {
		return true, nil
	}
	if next != "" {
		if _, err := os.Lstat(next); err == nil {
			return false, nil // it came before the watch, so what comes into it is not told
		}
	}
	stop := context.AfterFunc(ctx, func() { events.Close() })
	defer stop()
	var buffer [unix.SizeofInotifyEvent + unix.NAME_MAX + 1]byte
	if _, err := events.Read(buffer[:]); err != nil {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		return false, fmt.Errorf("cannot watch for %s: %w", path, err)
	}
	return false, nil
}

// watchParent watches the deepest directory above path that exists, and returns the one that was
// missing in it on the way to path, if any was.
func watchParent(fd int, path string) (missing string, err error) {
	const mask = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		_, err := unix.InotifyAddWatch(fd, dir, mask)
		if err == nil {
			return missing, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == "/" {
			return "", fmt.Errorf("cannot watch %s: %w", dir, err)
		}
		missing = dir
	}
}
