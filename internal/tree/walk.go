package tree

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"
)

// entry is one thing in a tree, while a visitor is shown it.
type entry struct {
	chain *chain // its current directory is the one that the entry is in
	name  string
	fd    int // pinned, see pin; while a directory is left, open
	st    unix.Stat_t
}

// failed says that something failed with the entry.
func (e *entry) failed(err error) error { return e.chain.failed(e.name, err) }

// A visitor is shown all that is in a tree. An error ends the walk.
type visitor interface {
	// enter is called before what is in a directory, and may make it usable.
	enter(e *entry) error
	// leave is called after what is in a directory, and after it was left.
	leave(e *entry) error
	// other is called for all that is no directory.
	other(e *entry) error
	// failed is called for what could not be opened or read. What it returns
	// without an error, the walk passes over.
	failed(name string, err error) error
}

// walk shows the visitor what is in the directory at which the chain ends, but
// not that itself.
func walk(ctx context.Context, c *chain, v visitor) error {
	bottom := c.depth()
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		name, err := c.top().list.read(c.fd())
		if err != nil {
			if err := v.failed("", c.failed("", err)); err != nil {
				return err
			}
		}
		switch {
		case name != "":
			err = visit(c, name, v)
		case c.depth() == bottom:
			return nil
		default:
			err = leave(c, v)
		}
		if err != nil {
			return err
		}
	}
}

func visit(c *chain, name string, v visitor) error {
	fd, st, err := pin(c.fd(), name)
	if errors.Is(err, unix.ENOENT) {
		return nil // it has vanished meanwhile
	}
	if err != nil {
		return v.failed(name, c.failed(name, err))
	}
	defer unix.Close(fd)
	e := &entry{chain: c, name: name, fd: fd, st: st}
	if !isDir(&st) {
		return v.other(e)
	}
	if err := v.enter(e); err != nil {
		if errors.Is(err, errPassOver) {
			return nil
		}
		return err
	}
	dir, err := open(fd, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return v.failed(name, e.failed(err))
	}
	if err := c.push(dir, name); err != nil {
		unix.Close(dir)
		return e.failed(err)
	}
	c.top().st = st
	return nil
}

// errPassOver is what enter returns for a directory to be left out.
var errPassOver = errors.New("left out")

func leave(c *chain, v visitor) error {
	left, err := c.pop()
	if err != nil {
		return err
	}
	defer left.close()
	return v.leave(&entry{chain: c, name: left.name, fd: left.fd, st: left.st})
}
