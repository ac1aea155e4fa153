package confine

import "golang.org/x/sys/unix"

// archCalls are what this architecture has besides.
var archCalls = []int{unix.SYS_FSTATAT, unix.SYS_GETRLIMIT}
