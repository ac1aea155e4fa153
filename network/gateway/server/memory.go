package server

import (
	"errors"

	"golang.org/x/sys/unix"
)

// lockMemory keeps what this process has in memory, and will have, out of the host's swap space.
//
// The kernel counts all that is reserved, which of Go is more than a gigabyte, and refuses memory beyond the limit from then
// on, of which a process dies. So there must be no limit.
func lockMemory() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return err
	}
	if limit.Cur != unix.RLIM_INFINITY {
		return errors.New("the limit of locked memory is too low (ulimit -l)")
	}
	return unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
}
