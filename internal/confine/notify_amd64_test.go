package confine

import "golang.org/x/sys/unix"

// mkdirCalls are older forms of mkdirat(2).
var mkdirCalls = []int{unix.SYS_MKDIR}
