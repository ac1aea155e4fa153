package virtiofs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// maxSocketPath is sizeof(sockaddr_un.sun_path) less its final NUL (unix(7)).
const maxSocketPath = 107

// listen makes a listening socket at path that only its owner can connect to. A stale socket is replaced.
//
// Package net is not used, because its sockets do not block, which virtiofsd takes for an error, and because
// they get the rights of the process's umask.
func listen(path string) (*os.File, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("the path of the socket %s is %d bytes long, and the kernel allows %d: use a shorter runtime directory (XDG_RUNTIME_DIR) or a shorter name", path, len(path), maxSocketPath)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == os.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("removing the stale socket: %w", err)
		}
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("making a socket: %w", os.NewSyscallError("socket", err))
	}
	socket := os.NewFile(uintptr(fd), path)
	// Linux makes the socket's file with the mode of the descriptor (less the umask), so it is never open to
	// others.
	err = os.NewSyscallError("fchmod", unix.Fchmod(fd, 0o600))
	if err == nil {
		err = os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
	}
	if err == nil {
		err = os.NewSyscallError("listen", unix.Listen(fd, 1))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listening on the socket %s: %w", path, err), socket.Close())
	}
	return socket, nil
}
