package hostdir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Resolve returns the absolute path without symbolic links to what name leads to now. It is for names that a
// user has just written, whose links are meant; the result is for Open.
func Resolve(name string) (string, error) {
	name, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(name)
}

// Dir is an open directory, or an open file in one. It stays the same whatever becomes of its path.
type Dir struct {
	file *os.File // O_PATH: it needs no permission to read
	path string
	in   *Dir // of a file: the directory
}

// LinkError reports a symbolic link on a path that has none when it is resolved.
type LinkError struct {
	Path   string // of the link
	Target string // to what it leads, as it is written in the link; a guest may have chosen it
}

func (e *LinkError) Error() string {
	return fmt.Sprintf("%s is a symbolic link, to %q", e.Path, e.Target)
}

// Open opens the directory at the path, which must be absolute and clean, and follows no symbolic link: one on
// the way is a *LinkError. The permission to enter the directories above is needed, but none to read. The caller
// closes it.
func Open(path string) (*Dir, error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("it must be absolute and clean")}
	}
	fd, err := unix.Open("/", pathFlags, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/", Err: err}
	}
	return descend(os.NewFile(uintptr(fd), "/"), "/", path[1:])
}

// OpenFile opens a regular file as Open does a directory, with the directory that it is in. Of anything else, the error is
// a *LinkError or says that it is no file.
func OpenFile(path string) (*Dir, error) {
	in, err := Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	name := filepath.Base(path)
	file, err := in.fileAt(name)
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return &Dir{file, filepath.Join(in.path, name), in}, nil
}

func (d *Dir) fileAt(name string) (*os.File, error) {
	path := filepath.Join(d.path, name)
	fd, err := unix.Openat(int(d.file.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	file := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = explain(d.file, name, path, errors.New("it is not a regular file"))
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// IsFile tells whether it is a file.
func (d *Dir) IsFile() bool { return d.in != nil }

// In is the directory that a file is in. It stays d's.
func (d *Dir) In() *Dir { return d.in }

// Beneath opens a directory below d, whose name is relative, without leaving d and without following a symbolic
// link. The caller closes it.
func (d *Dir) Beneath(name string) (*Dir, error) {
	if !filepath.IsLocal(name) {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(d.path, name), Err: errors.New("the name leaves the directory")}
	}
	top, err := d.at(".")
	if err != nil {
		return nil, err
	}
	return descend(top, d.path, filepath.Clean(name))
}

const pathFlags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// descend walks down from the directory at, which it closes.
//
// It does so step by step and not by openat2(2), to be able to name the link, and because containers that do
// not know openat2 answer it with any error.
func descend(at *os.File, path, rest string) (*Dir, error) {
	for name := range strings.SplitSeq(rest, "/") {
		if name == "" || name == "." {
			continue
		}
		path = filepath.Join(path, name)
		fd, err := openat(at, name)
		if err != nil {
			err = explain(at, name, path, err)
			return nil, errors.Join(err, at.Close())
		}
		at.Close() // of a descriptor that was never written to
		at = os.NewFile(uintptr(fd), path)
	}
	return &Dir{file: at, path: path}, nil
}

func openat(at *os.File, name string) (fd int, err error) {
	for {
		fd, err = unix.Openat(int(at.Fd()), name, pathFlags, 0)
		if !errors.Is(err, unix.EINTR) { // an automount may be interrupted
			return fd, err
		}
	}
}

// explain makes a *LinkError of the ENOTDIR by which the kernel reports a link too.
func explain(at *os.File, name, path string, err error) error {
	target := make([]byte, unix.PathMax)
	if n, linkErr := unix.Readlinkat(int(at.Fd()), name, target); linkErr == nil {
		return &LinkError{path, string(target[:n])}
	}
	return &fs.PathError{Op: "open", Path: path, Err: err}
}

func (d *Dir) at(name string) (*os.File, error) {
	fd, err := openat(d.file, name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(d.path, name), Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(d.path, name)), nil
}

// Path is where it was when it was opened.
func (d *Dir) Path() string { return d.path }

// File is its descriptor, opened with O_PATH. It stays d's, to be closed by Close.
func (d *Dir) File() *os.File { return d.file }

// Close gives the descriptors back.
func (d *Dir) Close() error {
	if d.in != nil {
		return errors.Join(d.file.Close(), d.in.Close())
	}
	return d.file.Close()
}

// CheckReadable fails unless the directory can be listed and entered, or the file read, by this process.
func (d *Dir) CheckReadable() error {
	if d.in != nil {
		file, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", d.file.Fd()))
		if err != nil {
			return err
		}
		return file.Close()
	}
	fd, err := unix.Openat(int(d.file.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: d.path, Err: err}
	}
	list := os.NewFile(uintptr(fd), d.path)
	defer list.Close()
	if _, err := list.Readdirnames(1); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// Identity is what tells a directory from every other one, also after a reboot. That of a file is its directory's, with the
// owner and group of the file: programs that save a file often put a new one in its place.
type Identity struct {
	Device uint64    `json:"device"`
	Inode  uint64    `json:"inode"`
	Born   time.Time `json:"born,omitzero"` // zero where the file system does not tell
	UID    uint32    `json:"uid"`           // of the owner
	GID    uint32    `json:"gid"`           // of the group; it may change
}

// Identity asks for the identity as it is now.
func (d *Dir) Identity() (Identity, error) {
	if d.in != nil {
		id, err := d.in.Identity()
		if err != nil {
			return Identity{}, err
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(d.file.Fd()), &st); err != nil {
			return Identity{}, &fs.PathError{Op: "fstat", Path: d.path, Err: err}
		}
		id.UID, id.GID = st.Uid, st.Gid
		return id, nil
	}
	var st unix.Statx_t
	const mask = unix.STATX_TYPE | unix.STATX_INO | unix.STATX_UID | unix.STATX_GID | unix.STATX_BTIME
	if err := unix.Statx(int(d.file.Fd()), "", unix.AT_EMPTY_PATH, mask, &st); err != nil {
		return Identity{}, &fs.PathError{Op: "statx", Path: d.path, Err: err}
	}
	id := Identity{Device: unix.Mkdev(st.Dev_major, st.Dev_minor), Inode: st.Ino, UID: st.Uid, GID: st.Gid}
	if st.Mask&unix.STATX_BTIME != 0 && st.Btime.Sec != 0 {
		id.Born = time.Unix(st.Btime.Sec, int64(st.Btime.Nsec)).UTC()
	}
	return id, nil
}

// IsZero tells whether nothing is on record.
func (i Identity) IsZero() bool { return i == Identity{} }

// Same tells whether the two are of one directory, whoever owns it. Inode numbers are used again, so the time
// of birth decides with them. Where the file system does not tell that, the device does: its number may be
// another one after a reboot, which then looks like another directory.
func (i Identity) Same(other Identity) bool {
	if i.Inode != other.Inode {
		return false
	}
	if i.Born.IsZero() || other.Born.IsZero() {
		return i.Device == other.Device
	}
	return i.Born.Equal(other.Born)
}

// Difference says in what the directory now differs from the record, to follow "it ", or is empty.
func (i Identity) Difference(now Identity) string {
	switch {
	case !i.Same(now):
		return "is another directory now than the one that was shared"
	case i.UID != now.UID:
		return fmt.Sprintf("belongs to user %d now and no more to user %d", now.UID, i.UID)
	}
	return ""
}

// Node is an inode of this machine. It is one for as long as somebody has it open: then its number may be used
// for another.
type Node struct{ device, inode uint64 }

// SameFileSystem tells whether the two are on one file system, or one of its subvolumes.
func (n Node) SameFileSystem(other Node) bool { return n.device == other.device }

// NodeAt returns the node to which the path leads, whatever it is. Symbolic links are followed.
func NodeAt(path string) (Node, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return Node{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return Node{st.Dev, st.Ino}, nil
}

// Node returns its node.
func (d *Dir) Node() (Node, error) { return nodeOf(d.file) }

func nodeOf(f *os.File) (Node, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Node{}, &fs.PathError{Op: "fstat", Path: f.Name(), Err: err}
	}
	return Node{st.Dev, st.Ino}, nil
}

// Lineage is a directory, or a file, and all directories above it.
type Lineage map[Node]bool

// maxDepth bounds the walk up from a directory: paths are shorter (PATH_MAX), but trees need not be.
const maxDepth = 1 << 16

// Lineage walks up from it, wherever it is now.
func (d *Dir) Lineage() (Lineage, error) {
	if d.in != nil {
		line, err := d.in.Lineage()
		if err != nil {
			return nil, err
		}
		node, err := d.Node()
		line[node] = true
		return line, err
	}
	root, err := NodeAt("/")
	if err != nil {
		return nil, err
	}
	at, err := d.at(".")
	if err != nil {
		return nil, err
	}
	defer func() { at.Close() }()
	line := Lineage{}
	for last := (Node{}); len(line) < maxDepth; {
		here, err := nodeOf(at)
		if err != nil {
			return nil, err
		}
		if here == root && here == last { // the root alone is above itself
			return line, nil
		}
		line[here], last = true, here
		fd, err := openat(at, "..")
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: d.path, Err: fmt.Errorf("a directory above it: %w", err)}
		}
		at.Close() // of a descriptor that was never written to
		at = os.NewFile(uintptr(fd), d.path+"/..")
	}
	return nil, &fs.PathError{Op: "open", Path: d.path, Err: unix.ENAMETOOLONG}
}
