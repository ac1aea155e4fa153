package gate

import (
	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/confine"
)

// asked are the calls by which virtiofsd changes names and files that are not open. What it does by a descriptor that is
// open for writing was asked when it was opened, and times are nothing that the host executes.
var asked = []int{
	unix.SYS_MKDIRAT, unix.SYS_MKNODAT, unix.SYS_SYMLINKAT, unix.SYS_LINKAT, unix.SYS_RENAMEAT2, unix.SYS_UNLINKAT,
	unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2, unix.SYS_FCHOWNAT,
}

// unused are calls by which others would do that. virtiofsd does not, once it serves, and may not. Extended attributes are
// among them, which it does not offer.
var unused = append([]int{
	unix.SYS_RENAMEAT, unix.SYS_TRUNCATE, unix.SYS_FCHOWN, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_MOUNT, unix.SYS_MOVE_MOUNT,
	unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_FSETXATTR, unix.SYS_REMOVEXATTR, unix.SYS_LREMOVEXATTR, unix.SYS_FREMOVEXATTR,
}, unusedArch...)

// The place of the flags among the arguments of openat(2).
const openFlags = 2

// writeFlags are those of an open(2) that may change something.
const writeFlags = unix.O_WRONLY | unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC

// Filter returns the rules of a filter whose listener is a gate's. With reads, it also asks about files that are opened
// to be read, with writes about what is written, for a Meter, and with times about those of files, for [TouchTime]. They
// expect openat2(2) to be refused, whose flags no filter sees.
func Filter(reads, writes, times bool) []confine.Rule {
	opening := func(bits uint32, do confine.Action) confine.Rule {
		return confine.Rule{Calls: []int{unix.SYS_OPENAT}, When: []confine.Condition{hasBits(openFlags, bits)}, Do: do}
	}
	rules := []confine.Rule{
		// It gives neither access to what is there nor makes anything, whatever the other flags are.
		opening(unix.O_PATH, confine.Allow),
		// A file without a name. Guests do not ask for any.
		opening(unix.O_TMPFILE&^unix.O_DIRECTORY, confine.Refuse(unix.EOPNOTSUPP)),
		opening(writeFlags, confine.Notify),
		opening(unix.O_DIRECTORY, confine.Allow),
	}
	if reads {
		rules = append(rules, confine.Rule{Calls: []int{unix.SYS_OPENAT}, Do: confine.Notify})
	}
	if writes {
		rules = append(rules, confine.Rule{Calls: metered, Do: confine.Notify})
	}
	if times {
		rules = append(rules, confine.Rule{Calls: []int{unix.SYS_UTIMENSAT}, Do: confine.Notify})
	}
	return append(rules, confine.Rule{Calls: append(unused[:len(unused):len(unused)], asked...), Do: confine.Notify})
}

// hasBits is true if the argument has any of the bits.
func hasBits(arg int, bits uint32) confine.Condition {
	return confine.Condition{Arg: arg, Mask: bits, Not: true}
}
