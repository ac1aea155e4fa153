// Package socketpair makes connected Unix sockets of which one end is for another process.
package socketpair

import (
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// New returns a connected pair of a type such as unix.SOCK_STREAM: an end for this process, and one to be inherited or
// handed over, which is called name in errors. The caller closes both.
func New(kind int, name string) (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	near := os.NewFile(uintptr(fds[0]), name)
	defer near.Close() // net.FileConn duplicates it
	theirs = os.NewFile(uintptr(fds[1]), name)
	conn, err := net.FileConn(near)
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return conn.(*net.UnixConn), theirs, nil
}
