package gate

import "golang.org/x/sys/unix"

// unusedArch are older forms.
var unusedArch = []int{
	unix.SYS_OPEN, unix.SYS_CREAT, unix.SYS_RENAME, unix.SYS_LINK, unix.SYS_SYMLINK, unix.SYS_MKDIR, unix.SYS_MKNOD,
	unix.SYS_UNLINK, unix.SYS_RMDIR, unix.SYS_CHMOD, unix.SYS_CHOWN, unix.SYS_LCHOWN,
}

// modeArguments are the calls that give a file a mode, with the place of the mode among their arguments.
var modeArguments = map[int]int{
	unix.SYS_CHMOD: 1, unix.SYS_FCHMOD: 1, unix.SYS_FCHMODAT: 2, unix.SYS_FCHMODAT2: 2, unix.SYS_CREAT: 1,
	unix.SYS_MKDIR: 1, unix.SYS_MKDIRAT: 2, unix.SYS_MKNOD: 1, unix.SYS_MKNODAT: 2,
}

// openArguments are the calls that may make a file, with the place of their flags, which the mode follows.
var openArguments = map[int]int{unix.SYS_OPEN: 1, unix.SYS_OPENAT: 2}
