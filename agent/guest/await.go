//go:build linux

package guest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

const (
	// awaitPatience is how long commands are held back for the paths that the
	// image names. systemd opens a socket that nothing precedes in its first
	// second, and an emulated one in its first five.
	awaitPatience = 30 * time.Second

	// listenPause lies between two looks at whether a socket that is there is
	// listened to, which is a system call of systemd's away.
	listenPause = 5 * time.Millisecond
)

// The kernel's list of unix sockets (unix(7), include/linux/net.h).
const (
	unixSockets = "/proc/net/unix"

	// accepting is the flag of those that listen: __SO_ACCEPTCON, 1 << 16.
	accepting = "00010000"
)

// forgetSockets removes the sockets among the paths: on a disk there are those
// of an earlier boot, behind which is nobody.
func forgetSockets(paths []string) {
	for _, path := range paths {
		if isSocket(path) {
			_ = os.Remove(path) // whose it is replaces it, or says why not
		}
	}
}

// awaitPaths returns when all of the paths exist, and somebody listens where
// they are sockets.
func awaitPaths(ctx context.Context, paths []string) error {
	ctx, cancel := context.WithTimeout(ctx, awaitPatience)
	defer cancel()
	for _, path := range paths {
		err := waitForPath(ctx, path)
		for err == nil && isSocket(path) && !listens(unixSockets, path) {
			select {
			case <-time.After(listenPause):
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		if err != nil {
			return fmt.Errorf("%s was not there within %v: %w", path, awaitPatience, err)
		}
	}
	return nil
}

func isSocket(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode().Type() == os.ModeSocket
}

// listens tells whether the kernel's list has a listening socket of that path.
// To connect would tell it, too, and start the daemon that is behind it.
func listens(list, path string) bool {
	text, err := os.ReadFile(list)
	if err != nil {
		return true // nothing can be said against it
	}
	for line := range strings.Lines(string(text)) {
		// Address, references, protocol, flags, type, state, inode, path.
		if f := strings.Fields(line); len(f) == 8 && f[7] == path && f[3] == accepting {
			return true
		}
	}
	return false
}
