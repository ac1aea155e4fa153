package confine

import "golang.org/x/sys/unix"

// archCalls are what this architecture has besides, most of them older forms.
var archCalls = []int{
	unix.SYS_ARCH_PRCTL, unix.SYS_NEWFSTATAT, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_OPEN, unix.SYS_ACCESS, unix.SYS_READLINK,
	unix.SYS_DUP2, unix.SYS_PIPE, unix.SYS_POLL, unix.SYS_SELECT, unix.SYS_EPOLL_CREATE, unix.SYS_EPOLL_WAIT, unix.SYS_EVENTFD,
	unix.SYS_GETDENTS, unix.SYS_GETRLIMIT, unix.SYS_TIME, unix.SYS_GETPGRP,
}
