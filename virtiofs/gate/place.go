package gate

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// place is a name in a directory, or, if the name is empty, a file or directory that is open. It is one of who asks, and
// so for as long only as the question is not answered.
type place struct {
	of     *notification
	number string // of the descriptor
	name   string
	path   string // in the share
}

// stat tells what is there.
func (g *Gate) stat(p place) (unix.Stat_t, error) { return g.callers.stat(p.of, p.number, p.name) }

// hold returns a descriptor of ours for the one of the place, to be closed. It is opened before the thread takes the power
// of another user, who may not look into the file server.
func (g *Gate) hold(p place) (int, error) { return g.callers.open(p.of, p.number) }

// place finds out which name or file the arguments of a call mean.
func (g *Gate) place(n *notification, dir, name uint64) (place, error) {
	text, err := g.callers.text(n, name)
	if err != nil {
		return place{}, err
	}
	return g.locate(n, dir, text)
}

// locate finds out which file a name in a directory is.
//
// The path is the kernel's own of the directory's descriptor, at this moment, less that of the share's root: no name that
// the guest made takes part in it but as what it is. virtiofsd follows no symbolic link in the last part of a name, but
// does in the others, if its guest sends such a name, which none that is honest does. So a name has one part.
func (g *Gate) locate(n *notification, dir uint64, name string) (place, error) {
	number, err := descriptor(dir)
	if err != nil {
		return place{}, err
	}
	if file, err := strconv.ParseUint(name, 10, 31); err == nil {
		proc, err := g.isProc(n, number)
		if err != nil {
			return place{}, err
		}
		if proc {
			// This is how virtiofsd comes from a descriptor that only says where a file is to the file itself.
			return g.open(n, file)
		}
	}
	if !isName(name) {
		return place{}, unix.EINVAL
	}
	at, err := g.pathOf(n, number)
	return place{n, number, name, path.Join(at, name)}, err
}

// isName tells whether it is one of what is in a directory.
func isName(text string) bool {
	return text != "" && text != "." && text != ".." && !strings.Contains(text, "/")
}

// open is the place of an open file.
func (g *Gate) open(n *notification, fd uint64) (place, error) {
	number, err := descriptor(fd)
	if err != nil {
		return place{}, err
	}
	at, err := g.pathOf(n, number)
	return place{of: n, number: number, path: at}, err
}

// isProc tells whether the directory is virtiofsd's list of its descriptors. That one's file system and the share's are told
// apart by their device numbers, which no others get as long as something of them is open here.
func (g *Gate) isProc(n *notification, number string) (bool, error) {
	st, err := g.callers.stat(n, number, "")
	switch {
	case err != nil:
		return false, err
	case st.Dev == g.device:
		return false, nil
	case g.proc >= 0 && st.Dev == g.procDevice:
		return true, nil
	}
	fd, err := g.callers.open(n, number)
	if err != nil {
		return false, err
	}
	device, proc, err := systemOf(fd)
	if proc && g.proc < 0 {
		g.proc, g.procDevice = fd, device
	} else {
		unix.Close(fd)
	}
	return proc, err
}

// systemOf tells the device number of a file's file system, and whether that is one of processes.
func systemOf(fd int) (device uint64, proc bool, err error) {
	var st unix.Stat_t
	var system unix.Statfs_t
	if err := errors.Join(unix.Fstat(fd, &st), unix.Fstatfs(fd, &system)); err != nil {
		return 0, false, err
	}
	return st.Dev, int64(system.Type) == unix.PROC_SUPER_MAGIC, nil
}

// errOutside says that something is not in the share.
var errOutside = errors.New("it is not in the share")

// pathOf returns where an open file is in the share. Directories whose path would be too long for the kernel to tell
// cannot be worked in.
func (g *Gate) pathOf(n *notification, number string) (string, error) {
	root := "/"
	if !g.ownRoot {
		var err error
		if root, err = g.rootPath(); err != nil {
			return "", err
		}
	}
	at, err := g.callers.path(n, number)
	if err != nil {
		return "", err
	}
	switch {
	case at == root:
		return ".", nil
	case root == "/":
		return at[1:], nil
	case strings.HasPrefix(at, root+"/"):
		return at[len(root)+1:], nil
	}
	return "", errOutside
}

// rootPath returns where the share is. What is the root of a mount namespace has the path "/" whatever the host renames,
// and keeps it, because virtiofsd does not mount anything while it serves. Others can be renamed at any time.
func (g *Gate) rootPath() (string, error) {
	return readPath(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", g.root), g.target[:])
}

// deleted is what the kernel appends to the path of what has no name any more.
const deleted = " (deleted)"

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
