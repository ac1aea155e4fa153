package workspace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/hostdir"
)

// node is what the host has at a path.
type node struct {
	side  Side
	dev   uint64
	ino   uint64
	mtime int64 // nanoseconds since 1970, as ctime
	ctime int64
	uid   uint32
	gid   uint32
}

// same tells whether it is the same file with the same content, as far as that shows. A rename changes ctime, and so it
// is left out.
func (n *node) same(other *node) bool {
	return n.dev == other.dev && n.ino == other.ino && n.mtime == other.mtime && n.side.Size == other.side.Size &&
		n.side.Mode == other.side.Mode
}

// absent tells whether an error says that there is nothing by that path, for it would be reached through what is no
// directory.
func absent(err error) bool {
	_, link := errors.AsType[*hostdir.LinkError](err)
	return link || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}

// lstat returns what is at a path below dir, or nil.
func lstat(dir *hostdir.Dir, name string) (*node, error) {
	parent, err := dir.Beneath(path.Dir(name))
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	return lstatAt(parent, path.Base(name))
}

func lstatAt(parent *hostdir.Dir, base string) (*node, error) {
	var st unix.Stat_t
	err := unix.Fstatat(int(parent.File().Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: path.Join(parent.Path(), base), Err: err}
	}
	n := nodeOf(&st)
	if n.side.Mode.Type() == fs.ModeSymlink {
		if n.side.Link, err = readlinkAt(parent, base); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func nodeOf(st *unix.Stat_t) *node {
	n := &node{
		dev: st.Dev, ino: st.Ino, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(), uid: st.Uid, gid: st.Gid,
		side: Side{Mode: fs.FileMode(st.Mode & 0o777)},
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		n.side.Size = st.Size
	case unix.S_IFDIR:
		n.side.Mode |= fs.ModeDir
	case unix.S_IFLNK:
		n.side.Mode |= fs.ModeSymlink
	case unix.S_IFIFO:
		n.side.Mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		n.side.Mode |= fs.ModeSocket
	default:
		n.side.Mode |= fs.ModeDevice
	}
	return n
}

func readlinkAt(parent *hostdir.Dir, base string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(parent.File().Fd()), base, buf)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: path.Join(parent.Path(), base), Err: err}
	}
	return string(buf[:n]), nil
}

// openAt opens a regular file, and nothing else, to be read.
func openAt(parent *hostdir.Dir, base string) (*os.File, *node, error) {
	name := path.Join(parent.Path(), base)
	fd, err := unix.Openat(int(parent.File().Fd()), base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, nil, errors.Join(&fs.PathError{Op: "stat", Path: name, Err: err}, f.Close())
	}
	n := nodeOf(&st)
	if !n.side.Mode.IsRegular() {
		return nil, nil, errors.Join(fmt.Errorf("%s is no regular file", name), f.Close())
	}
	return f, n, nil
}

// open is openAt for a path below dir.
func open(dir *hostdir.Dir, name string) (*os.File, *node, error) {
	parent, err := dir.Beneath(path.Dir(name))
	if err != nil {
		return nil, nil, err
	}
	defer parent.Close()
	return openAt(parent, path.Base(name))
}

// names lists a directory below dir in the order of the names' bytes.
func names(dir *hostdir.Dir, name string) ([]string, error) {
	d, err := dir.Beneath(name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	fd, err := unix.Openat(int(d.File().Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: d.Path(), Err: err}
	}
	list := os.NewFile(uintptr(fd), d.Path())
	defer list.Close()
	all, err := list.Readdirnames(-1)
	slices.Sort(all)
	return all, err
}
