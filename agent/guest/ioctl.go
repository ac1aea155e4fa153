//go:build linux

package guest

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl makes a request of a file's driver without making the file block, as Fd
// would.
func ioctl(f *os.File, request uintptr, argument unsafe.Pointer) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno unix.Errno
	if err := raw.Control(func(fd uintptr) { _, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(argument)) }); err != nil {
		return err
	}
	if errno != 0 {
		return errno
	}
	return nil
}
