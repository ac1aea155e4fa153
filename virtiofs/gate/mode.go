package gate

import (
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/virtiofs/rules"
)

// SetID are the bits of a file's mode by which it is run as its owner or its group.
const SetID = unix.S_ISUID | unix.S_ISGID

// modes are the calls of a file server that give a file a mode, with the place of that among their arguments.
var modes = map[int]int{
	unix.SYS_OPENAT: openFlags + 1, unix.SYS_MKDIRAT: 2, unix.SYS_MKNODAT: 2,
	unix.SYS_FCHMOD: 1, unix.SYS_FCHMODAT: 2, unix.SYS_FCHMODAT2: 2,
}

// RefusesSetID tells whether a gate refuses such a call if it sets bits of SetID. It does so from its beginning, whatever
// the judge says. A filter may leave other calls to nobody.
func RefusesSetID(call int) bool {
	_, ok := modes[call]
	return ok
}

// setsID tells whether a call would.
func setsID(n *notification) bool {
	at, ok := modes[int(n.call)]
	if int(n.call) == unix.SYS_OPENAT && n.args[openFlags]&(unix.O_CREAT|unix.O_TMPFILE&^unix.O_DIRECTORY) == 0 {
		return false // there is no mode
	}
	return ok && n.args[at]&SetID != 0
}

// refuseSetID tells of such a call, which gets EPERM, as a service does with systemd's RestrictSUIDSGID.
func (g *Gate) refuseSetID(n *notification) unix.Errno {
	if !g.armed.Load() { // no guest is there
		return unix.EPERM
	}
	verb, op := Create, rules.Make
	var p place
	var err error
	switch n.call {
	case unix.SYS_MKDIRAT:
		verb = Mkdir
	case unix.SYS_MKNODAT:
		if typeOf(uint32(n.args[2])) != 0 {
			verb = Mknod
		}
	case unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2:
		verb, op = Chmod, rules.Change
	}
	if n.call == unix.SYS_FCHMOD {
		p, err = g.open(n, n.args[0])
	} else {
		p, err = g.place(n, n.args[0], n.args[1])
	}
	if err == nil {
		g.refuseMode(Event{Verb: verb, Path: p.path}, rules.Access{Operation: op, Path: p.path, Type: fs.ModeSetuid})
	}
	return unix.EPERM
}

// refuseMode tells of what is refused under any name.
func (g *Gate) refuseMode(ev Event, a rules.Access) {
	verdict := rules.JudgeMode(a)
	ev.Time, ev.Refused, ev.Rule, ev.Reason = time.Now(), a.Path, verdict.Rule, verdict.Reason
	g.observe(ev)
}
