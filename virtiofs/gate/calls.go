package gate

import (
	"errors"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/virtiofs/rules"
)

// handlers judge the calls that a file server may make. They return whether they have done what it asked for. Other calls
// that come here are refused.
var handlers = map[int]func(*Gate, *notification) (done bool, err error){
	unix.SYS_OPENAT:    (*Gate).openat,
	unix.SYS_MKDIRAT:   (*Gate).mkdirat,
	unix.SYS_MKNODAT:   (*Gate).mknodat,
	unix.SYS_SYMLINKAT: (*Gate).symlinkat,
	unix.SYS_LINKAT:    (*Gate).linkat,
	unix.SYS_RENAMEAT2: (*Gate).renameat2,
	unix.SYS_UNLINKAT:  (*Gate).unlinkat,
	unix.SYS_FCHMOD:    (*Gate).fchmod,
	unix.SYS_FCHMODAT:  (*Gate).fchmodat,
	unix.SYS_FCHMODAT2: (*Gate).fchmodat,
	unix.SYS_FCHOWNAT:  (*Gate).fchownat,
	unix.SYS_UTIMENSAT: (*Gate).utimensat,
}

// existing is an operation on what is there.
func (g *Gate) existing(p place, op rules.Operation) (rules.Access, error) {
	st, err := g.stat(p)
	if err != nil {
		return rules.Access{}, err
	}
	a := rules.Access{Operation: op, Path: p.path, Type: typeOf(st.Mode)}
	if a.Type == 0 && g.wantsContent(p.path) {
		a.Content = func() ([]byte, error) { return g.content(p) }
	}
	return a, nil
}

// change judges one operation on what is there.
func (g *Gate) change(p place, verb Verb, op rules.Operation) error {
	a, err := g.existing(p, op)
	if err != nil {
		return err
	}
	return g.check(Event{Verb: verb, Path: p.path}, a)
}

func (g *Gate) openat(n *notification) (bool, error) {
	flags := n.args[openFlags]
	if int32(n.args[0]) == unix.AT_FDCWD && flags&writeFlags == 0 {
		return false, nil // a file of the system that virtiofsd itself reads: the guest's are all below a descriptor
	}
	p, err := g.place(n, n.args[0], n.args[1])
	if err != nil {
		return false, err
	}
	switch {
	case p.name != "" && flags&unix.O_CREAT != 0:
		made := rules.Access{Operation: rules.Make, Path: p.path}
		if flags&unix.O_EXCL != 0 { // as always of virtiofsd
			return false, g.check(Event{Verb: Create, Path: p.path}, made)
		}
		written := rules.Access{Operation: rules.Write, Path: p.path}
		return false, g.check(Event{Verb: Create, Path: p.path}, made, written)
	case flags&writeFlags != 0:
		return false, g.change(p, Write, rules.Write)
	}
	if !g.wantsContent(p.path) { // the name decides, whatever it is of
		return false, g.check(Event{Verb: Read, Path: p.path}, rules.Access{Operation: rules.Read, Path: p.path})
	}
	return false, g.change(p, Read, rules.Read)
}

// make judges a name that the call makes, which is at these places among its arguments.
func (g *Gate) make(n *notification, dir, name int, ev Event, a rules.Access) error {
	p, err := g.place(n, n.args[dir], n.args[name])
	if err != nil {
		return err
	}
	ev.Path, a.Path, a.Operation = p.path, p.path, rules.Make
	return g.check(ev, a)
}

func (g *Gate) mkdirat(n *notification) (bool, error) {
	return false, g.make(n, 0, 1, Event{Verb: Mkdir}, rules.Access{Type: typeOf(unix.S_IFDIR)})
}

func (g *Gate) mknodat(n *notification) (bool, error) {
	kind := typeOf(uint32(n.args[2]))
	if kind&fs.ModeDevice != 0 { // one that everybody may make is of no use either
		if p, err := g.place(n, n.args[0], n.args[1]); err == nil {
			g.refuseMode(Event{Verb: Mknod, Path: p.path}, rules.Access{Operation: rules.Make, Path: p.path, Type: kind})
		}
		return false, unix.EPERM
	}
	return false, g.make(n, 0, 1, Event{Verb: mknodVerb(kind)}, rules.Access{Type: kind})
}

// mknodVerb is what mknod(2) does that makes something of that type.
func mknodVerb(kind fs.FileMode) Verb {
	if kind == 0 {
		return Create
	}
	return Mknod
}

func (g *Gate) symlinkat(n *notification) (bool, error) {
	target, err := g.callers.text(n, n.args[0])
	if err != nil {
		return false, err
	}
	return false, g.make(n, 1, 2, Event{Verb: Symlink, To: target}, rules.Access{Type: typeOf(unix.S_IFLNK), Link: target})
}

// places are those of a call that has two names.
func (g *Gate) places(n *notification) (from, to place, err error) {
	names, err := g.callers.texts(n, [2]uint64{n.args[1], n.args[3]})
	if err != nil {
		return from, to, err
	}
	if from, err = g.locate(n, n.args[0], names[0]); err != nil {
		return from, to, err
	}
	name := names[1]
	if int32(n.args[2]) == int32(n.args[0]) && from.name != "" && isName(name) { // as most: where it is, is known
		return from, place{n, from.number, name, path.Join(path.Dir(from.path), name)}, nil
	}
	to, err = g.locate(n, n.args[2], name)
	return from, to, err
}

// linkat judges whether the file may be written, as it can be by its new name.
func (g *Gate) linkat(n *notification) (bool, error) {
	from, to, err := g.places(n)
	if err != nil {
		return false, err
	}
	old, err := g.existing(from, rules.Write)
	if err != nil {
		return false, err
	}
	made := rules.Access{Operation: rules.Make, Path: to.path, Type: old.Type, Moved: true}
	return false, g.check(Event{Verb: Link, Path: from.path, To: to.path}, old, made)
}

func (g *Gate) renameat2(n *notification) (bool, error) {
	flags := uint(n.args[4])
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return false, unix.EINVAL // a whiteout is a device
	}
	from, to, err := g.places(n)
	if err != nil {
		return false, err
	}
	removed, err := g.existing(from, rules.Remove)
	if err != nil {
		return false, err
	}
	ev := Event{Verb: Rename, Path: from.path, To: to.path}
	made := rules.Access{Operation: rules.Make, Path: to.path, Type: removed.Type, Moved: true}
	if flags&unix.RENAME_EXCHANGE != 0 {
		other, err := g.existing(to, rules.Remove)
		if err != nil {
			return false, err
		}
		ev.Verb = Swap
		back := rules.Access{Operation: rules.Make, Path: from.path, Type: other.Type, Moved: true}
		return false, g.check(ev, removed, made, other, back)
	}
	if made.Type != 0 || !g.wantsContent(to.path) {
		return false, g.check(ev, removed, made)
	}
	r := &replacement{gate: g, from: from, to: to, flags: flags}
	made.Content = r.content
	switch over, err := g.existing(to, rules.Remove); {
	case err == nil:
		made.Old = over.Content
	case !errors.Is(err, unix.ENOENT):
		return false, err
	}
	if err := g.check(ev, removed, made); err != nil {
		return false, err
	}
	return r.finish()
}

func (g *Gate) unlinkat(n *notification) (bool, error) {
	p, err := g.place(n, n.args[0], n.args[1])
	if err != nil {
		return false, err
	}
	a, err := g.existing(p, rules.Remove)
	if err != nil {
		return false, err
	}
	a.Empty = n.args[2]&unix.AT_REMOVEDIR != 0
	return false, g.check(Event{Verb: Remove, Path: p.path}, a)
}

// changeOpen judges a change of what is open, which is the call's first argument.
func (g *Gate) changeOpen(n *notification, verb Verb) error {
	p, err := g.open(n, n.args[0])
	if err != nil {
		return err
	}
	return g.change(p, verb, rules.Change)
}

func (g *Gate) fchmod(n *notification) (bool, error) { return false, g.changeOpen(n, Chmod) }

func (g *Gate) fchmodat(n *notification) (bool, error) {
	p, err := g.place(n, n.args[0], n.args[1])
	if err != nil {
		return false, err
	}
	return false, g.change(p, Chmod, rules.Change)
}

// fchownat is what virtiofsd makes of each chown: of the descriptor itself.
func (g *Gate) fchownat(n *notification) (bool, error) {
	const emptyPath = unix.AT_EMPTY_PATH
	if n.args[4]&emptyPath == 0 {
		return false, unix.EPERM
	}
	name, err := g.callers.text(n, n.args[1])
	if err != nil {
		return false, err
	}
	if name != "" {
		return false, unix.EPERM
	}
	return false, g.changeOpen(n, Chown)
}
