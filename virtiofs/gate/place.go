package gate

import (
	"errors"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// place is a name in a directory, or, if the name is empty, a file or directory that is open. Its descriptor is ours.
type place struct {
	fd   int
	name string
	path string // in the share
}

func (p place) close() { unix.Close(p.fd) }

// stat tells what is there.
func (p place) stat() (st unix.Stat_t, err error) {
	return st, unix.Fstatat(p.fd, p.name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH)
}

// place finds out which name or file the arguments of a call mean.
//
// The path is the kernel's own of the directory's descriptor, at this moment, less that of the share's root: no name that
// the guest made takes part in it but as what it is. virtiofsd follows no symbolic link in the last part of a name, but
// does in the others, if its guest sends such a name, which none that is honest does. So a name has one part.
func (g *Gate) place(n *notification, dir, name uint64) (place, error) {
	text, err := g.callers.text(n, name)
	if err != nil {
		return place{}, err
	}
	fd, err := g.callers.descriptor(n, dir)
	if err != nil {
		return place{}, err
	}
	p, err := g.locate(n, fd, text)
	if err != nil {
		unix.Close(fd)
	}
	return p, err
}

func (g *Gate) locate(n *notification, fd int, name string) (place, error) {
	if number, err := strconv.ParseUint(name, 10, 31); err == nil && isProc(fd) {
		// This is how virtiofsd comes from a descriptor that only says where a file is to the file itself.
		file, err := g.callers.descriptor(n, number)
		if err != nil {
			return place{}, err
		}
		at, err := g.open(file)
		if err != nil {
			unix.Close(file)
			return place{}, err
		}
		unix.Close(fd)
		return at, nil
	}
	if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
		return place{}, unix.EINVAL
	}
	at, err := g.pathOf(fd)
	return place{fd, name, path.Join(at, name)}, err
}

// open is the place of an open file.
func (g *Gate) open(fd int) (place, error) {
	at, err := g.pathOf(fd)
	return place{fd: fd, path: at}, err
}

// isProc tells whether the directory is virtiofsd's list of its descriptors.
func isProc(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && int64(st.Type) == unix.PROC_SUPER_MAGIC
}

// errOutside says that something is not in the share.
var errOutside = errors.New("it is not in the share")

// pathOf returns where an open file is in the share. Directories whose path would be too long for the kernel to tell
// cannot be worked in.
func (g *Gate) pathOf(fd int) (string, error) {
	root, err := g.read(g.root)
	if err != nil {
		return "", err
	}
	at, err := g.read(fd)
	if err != nil {
		return "", err
	}
	switch {
	case at == root:
		return ".", nil
	case root == "/":
		return strings.TrimPrefix(at, "/"), nil
	case strings.HasPrefix(at, root+"/"):
		return at[len(root)+1:], nil
	}
	return "", errOutside
}

// deleted is what the kernel appends to the path of what has no name any more.
const deleted = " (deleted)"

// read asks the kernel for the path of a descriptor. For one of another mount namespace, that is the path there, as far
// as it is one of mounts.
func (g *Gate) read(fd int) (string, error) {
	g.link = strconv.AppendInt(append(g.link[:0], "/proc/self/fd/"...), int64(fd), 10)
	n, err := unix.Readlink(string(g.link), g.target[:])
	if err != nil {
		return "", err
	}
	if n == len(g.target) || n == 0 || g.target[0] != '/' {
		return "", errOutside
	}
	return string(g.target[:n]), nil
}

// typeOf has the type bits of a mode as the kernel has it.
func typeOf(mode uint32) fs.FileMode {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return fs.ModeDir
	case unix.S_IFLNK:
		return fs.ModeSymlink
	case unix.S_IFIFO:
		return fs.ModeNamedPipe
	case unix.S_IFSOCK:
		return fs.ModeSocket
	case unix.S_IFCHR:
		return fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		return fs.ModeDevice
	}
	return 0
}
