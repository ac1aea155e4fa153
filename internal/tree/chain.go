package tree

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// keptOpen is how many directories a chain keeps open: enough for trees that
// people make, and few enough for several chains in one process.
const keptOpen = 32

// ID tells a file from all others that there are at the same time.
type ID struct{ dev, ino uint64 }

func idOf(st *unix.Stat_t) ID { return ID{st.Dev, st.Ino} }

// chain is the way from a root directory down to the current one. Directories
// far above the current one are closed, and opened again on the way back.
type chain struct{ levels []*level }

// level is a directory in a chain.
type level struct {
	fd     int // -1 while it is closed
	id     ID
	name   string // in the level above
	linked bool   // a link led to it, so its own parent is not the level above
	list   listing
	st     unix.Stat_t // of a directory in a walk, before it was entered
}

// errMoved is for a directory that was moved while something was in it.
var errMoved = errors.New("it was moved away meanwhile")

// newChain returns the chain that ends at its root, which it owns from then on.
func newChain(root int) (*chain, error) {
	c := &chain{}
	if err := c.push(root, ""); err != nil {
		unix.Close(root)
		return nil, err
	}
	return c, nil
}

func (c *chain) close() {
	for _, l := range c.levels {
		l.close()
	}
	c.levels = nil
}

func (l *level) close() {
	if l.fd >= 0 {
		unix.Close(l.fd)
	}
	l.fd = -1
	l.list.forget()
}

func (c *chain) depth() int  { return len(c.levels) - 1 }
func (c *chain) top() *level { return c.levels[len(c.levels)-1] }
func (c *chain) fd() int     { return c.top().fd }

// push makes the directory at fd, which the chain owns if there is no error,
// the current one.
func (c *chain) push(fd int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	c.levels = append(c.levels, &level{fd: fd, id: idOf(&st), name: name})
	// What lies above a directory that a link led to is found by no "..".
	if i := len(c.levels) - 1 - keptOpen; i >= 0 && !c.levels[i+1].linked {
		c.levels[i].close()
	}
	return nil
}

// pop makes the level above the current one and returns the one that it leaves,
// which the caller closes.
func (c *chain) pop() (*level, error) {
	left, up := c.top(), c.levels[len(c.levels)-2]
	if up.fd < 0 {
		fd, err := unix.Openat(left.fd, "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, c.failed("", err)
		}
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err == nil && idOf(&st) != up.id {
			err = errMoved
		}
		if err != nil {
			unix.Close(fd)
			return nil, c.failed("", err)
		}
		up.fd = fd
	}
	c.levels = c.levels[:len(c.levels)-1]
	return left, nil
}

// path is the path from the root to the name in the current directory.
func (c *chain) path(name string) string {
	var b strings.Builder
	for _, l := range c.levels[1:] {
		b.WriteString(l.name)
		b.WriteByte('/')
	}
	return path.Join(b.String(), name)
}

// failed says where something failed.
func (c *chain) failed(name string, err error) error {
	return fmt.Errorf("%s: %w", Show(c.path(name)), err)
}

// Show writes a path that a stranger may have chosen for a person to read:
// without control characters, and no longer than a line or two.
func Show(path string) string {
	const most = 200
	if path == "" {
		path = "."
	}
	if len(path) > most {
		path = path[:most/2] + "…" + path[len(path)-most/2:]
	}
	quoted := strconv.Quote(path)
	if inner := quoted[1 : len(quoted)-1]; inner == path {
		return path
	}
	return quoted
}

// pin opens what has the name in a directory for nothing but to be looked at
// and to be opened again: whatever it is, that has no effect.
func pin(dir int, name string) (int, unix.Stat_t, error) {
	var st unix.Stat_t
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, st, err
	}
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, st, err
	}
	return fd, st, nil
}

// open opens what is pinned.
func open(pinned, flags int) (int, error) {
	return unix.Open(proc(pinned), flags|unix.O_CLOEXEC, 0)
}

// proc is a path to what is pinned, which is no link. The kernel resolves it
// without any name of the tree (proc_pid_fd(5)).
func proc(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func isDir(st *unix.Stat_t) bool     { return st.Mode&unix.S_IFMT == unix.S_IFDIR }
func isRegular(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFREG }
func isLink(st *unix.Stat_t) bool    { return st.Mode&unix.S_IFMT == unix.S_IFLNK }

// makeUsable gives the owner the permissions on what is pinned that it lacks,
// if the owner is who we are. Root needs none.
func makeUsable(pinned int, st *unix.Stat_t, need uint32) error {
	if euid := os.Geteuid(); euid == 0 || uint32(euid) != st.Uid || st.Mode&need == need {
		return nil
	}
	return unix.Fchmodat(unix.AT_FDCWD, proc(pinned), st.Mode&0o7777|need, 0)
}

// readlink returns the target of a pinned link.
func readlink(pinned int) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(pinned, "", buf)
	return string(buf[:max(n, 0)]), err
}
