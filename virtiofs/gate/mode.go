package gate

import (
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/confine"
	"github.com/sourcery-zone/sandbox/virtiofs/rules"
)

const (
	// setID are the bits of a file's mode by which it is run as its owner or its group.
	setID = unix.S_ISUID | unix.S_ISGID
	// making are the flags of an open(2) without which there is no mode.
	making = unix.O_CREAT | unix.O_TMPFILE&^unix.O_DIRECTORY
)

// SetIDFilter returns the rules for calls that give a file a mode with set-id bits. A gate that is asked refuses them, from
// its beginning and whatever its judge says, and tells of it.
func SetIDFilter(do confine.Action) (rules []confine.Rule) {
	for call, mode := range modeArguments {
		rules = append(rules, confine.Rule{Calls: []int{call}, When: []confine.Condition{hasBits(mode, setID)}, Do: do})
	}
	for call, flags := range openArguments {
		rules = append(rules, confine.Rule{Calls: []int{call}, When: []confine.Condition{hasBits(flags, making), hasBits(flags+1, setID)}, Do: do})
	}
	return rules
}

// setsID tells whether a call is one of those.
func setsID(n *notification) bool {
	if mode, ok := modeArguments[int(n.call)]; ok {
		return n.args[mode]&setID != 0
	}
	flags, ok := openArguments[int(n.call)]
	return ok && n.args[flags]&making != 0 && n.args[flags+1]&setID != 0
}

// refuseSetID tells of such a call, which gets EPERM, as a service does with systemd's RestrictSUIDSGID.
func (g *Gate) refuseSetID(n *notification) unix.Errno {
	if !g.armed.Load() { // no guest is there
		return unix.EPERM
	}
	verb, op := Create, rules.Make
	switch n.call {
	case unix.SYS_OPENAT:
	case unix.SYS_MKDIRAT:
		verb = Mkdir
	case unix.SYS_MKNODAT:
		verb = mknodVerb(typeOf(uint32(n.args[2])))
	case unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2:
		verb, op = Chmod, rules.Change
	default: // an older form, which virtiofsd does not use
		return unix.EPERM
	}
	var p place
	var err error
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
	g.tellRefused(ev, a.Path, rules.JudgeMode(a))
}
