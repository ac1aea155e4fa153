package gate

import "golang.org/x/sys/unix"

// unusedArch are older forms, of which this architecture has none.
var unusedArch []int

// modeArguments are the calls that give a file a mode, with the place of the mode among their arguments.
var modeArguments = map[int]int{
	unix.SYS_FCHMOD: 1, unix.SYS_FCHMODAT: 2, unix.SYS_FCHMODAT2: 2, unix.SYS_MKDIRAT: 2, unix.SYS_MKNODAT: 2,
}

// openArguments are the calls that may make a file, with the place of their flags, which the mode follows.
var openArguments = map[int]int{unix.SYS_OPENAT: 2}
