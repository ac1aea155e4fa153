//go:build linux

package guest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// listenPatience is how long commands are held back for the sockets that
	// the image names. Process 1 listens at once; without it systemd would have
	// to, whose emulated start takes some seconds.
	listenPatience = 30 * time.Second

	// listenPause lies between two looks at whether a socket that is there is
	// listened to, which is a system call of process 1's away.
	listenPause = 5 * time.Millisecond

	// listenMode is systemd's for sockets (systemd.socket(5), SocketMode): who
	// may say what there is for the daemon to decide.
	listenMode = 0o666
)

// The kernel's list of unix sockets (unix(7), include/linux/net.h).
const (
	unixSockets = "/proc/net/unix"

	// accepting is the flag of those that listen: __SO_ACCEPTCON, 1 << 16.
	accepting = "00010000"
)

// listenFor listens for a program that this process is about to become. systemd
// takes over what it inherits for that one of its socket units that has the
// address, as it does for managers of containers: who connects earlier waits
// for the unit's service as those do who connect later.
func listenFor(path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0) // and not closed by exec
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	if err == nil {
		err = unix.Chmod(path, listenMode)
	}
	if err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	return nil
}

// forgetSockets removes the sockets among the paths: on a disk there are those
// of an earlier boot, behind which is nobody.
func forgetSockets(paths []string) {
	for _, path := range paths {
		if isSocket(path) {
			_ = os.Remove(path) // whose it is replaces it, or says why not
		}
	}
}

// awaitListeners returns when somebody listens on all of the sockets.
func awaitListeners(ctx context.Context, paths []string) error {
	ctx, cancel := context.WithTimeout(ctx, listenPatience)
	defer cancel()
	for _, path := range paths {
		err := waitForPath(ctx, path)
		for err == nil && !listens(unixSockets, path) {
			select {
			case <-time.After(listenPause):
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		if err != nil {
			return fmt.Errorf("nobody listened on %s within %v: %w", path, listenPatience, err)
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
