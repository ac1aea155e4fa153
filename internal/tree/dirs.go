package tree

import (
	"archive/tar"
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// node is a directory of the stream.
type node struct {
	parent *node // nil for the root
	depth  int
	name   string
	noted  bool
	mode   uint32
	mtime  time.Time
}

func (n *node) path() []string {
	var names []string
	for ; n.parent != nil; n = n.parent {
		names = append(names, n.name)
	}
	slices.Reverse(names)
	return names
}

// note remembers mode and time of the current directory for the end.
func (u *unpacker) note(h *tar.Header) {
	n := u.at[len(u.at)-1]
	n.mode, n.mtime = u.mode(h), h.ModTime
	if !n.noted {
		n.noted = true
		u.dirs = append(u.dirs, n)
	}
}

// moveTo makes the directory with those names below the root the current one,
// by step for each that is not on the way already.
func (u *unpacker) moveTo(names []string, step func(name string) error) error {
	same := 0
	for same < len(names) && same < u.c.depth() && u.c.levels[same+1].name == names[same] {
		same++
	}
	for u.c.depth() > same {
		left, err := u.up()
		if err != nil {
			return err
		}
		left.close()
	}
	for _, name := range names[same:] {
		if err := step(name); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) up() (*level, error) {
	left, err := u.c.pop()
	if err == nil {
		u.at = u.at[:len(u.at)-1]
	}
	return left, err
}

// down enters a directory, which it makes if there is none, and refuses to go
// through a link.
func (u *unpacker) down(name string) error {
	// Closed to others, and open to us, until its own mode is set.
	if err := unix.Mkdirat(u.c.fd(), name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return u.failed(name, err)
	}
	fd, st, err := pin(u.c.fd(), name)
	if err != nil {
		return u.failed(name, err)
	}
	defer unix.Close(fd)
	linked := false
	switch {
	case isDir(&st):
		err = makeUsable(fd, &st, 0o700)
	case isLink(&st) && u.o.Guest && !u.made[idOf(&st)]:
		linked = true
	default:
		err = errors.New("it is no directory, or a link to one, and nothing is written through a link: nothing more is copied")
	}
	if err != nil {
		return u.failed(name, err)
	}
	return u.enter(name, fd, linked)
}

// again enters a directory that the stream has brought.
func (u *unpacker) again(name string) error {
	fd, st, err := pin(u.c.fd(), name)
	if err != nil {
		return u.failed(name, err)
	}
	defer unix.Close(fd)
	if !isDir(&st) && (!isLink(&st) || !u.o.Guest) {
		return u.failed(name, errMoved)
	}
	return u.enter(name, fd, isLink(&st))
}

func (u *unpacker) enter(name string, pinned int, linked bool) error {
	var dir int
	var err error
	if linked {
		dir, err = unix.Openat(u.c.fd(), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	} else {
		dir, err = open(pinned, unix.O_RDONLY|unix.O_DIRECTORY)
	}
	if err != nil {
		return u.failed(name, err)
	}
	if err := u.c.push(dir, name); err != nil {
		unix.Close(dir)
		return u.failed(name, err)
	}
	u.c.top().linked = linked
	u.at = append(u.at, &node{parent: u.at[len(u.at)-1], depth: u.c.depth(), name: name})
	return nil
}

// finishDirs sets the modes and times of directories, the innermost first: to
// write in one changes its time, and may need more than its mode allows.
func (u *unpacker) finishDirs() error {
	slices.SortStableFunc(u.dirs, func(a, b *node) int { return b.depth - a.depth })
	var errs []error
	for _, n := range u.dirs {
		if err := u.finish(n); err != nil && len(errs) < maxErrors {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (u *unpacker) finish(n *node) error {
	if err := u.moveTo(n.path(), u.again); err != nil {
		return err
	}
	dir := u.c.top()
	if n.parent != nil {
		var err error
		if dir, err = u.up(); err != nil {
			return err
		}
		defer dir.close()
	}
	err := unix.Fchmod(dir.fd, n.mode)
	if err == nil {
		err = u.times(dir.fd, n.mtime)
	}
	if err != nil {
		return u.failed(n.name, err)
	}
	return nil
}
