package trust

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many links a path may have, as for the kernel
// (path_resolution(7)).
const maxLinks = 40

// MakeDir makes the directory at an absolute path, and those above it that are
// missing, each open to the caller only, and opens it. It refuses a path on which
// somebody else could put another directory in its place, and a directory that
// somebody else has, or may write. The caller closes it.
func MakeDir(path string) (*os.File, error) {
	o := Caller(func(string) string { return "" })
	dir, err := o.walk(path, true)
	if err != nil {
		return nil, err
	}
	o.uids = []int{o.self}
	if err := o.ownDir(dir); err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// Reach returns nil if nobody but the owners can put another directory in the
// place of the one at an absolute path.
func (o Owners) Reach(path string) error {
	dir, err := o.walk(path, false)
	if err != nil {
		return err
	}
	return dir.Close()
}

func (o Owners) walk(path string, make bool) (*os.File, error) {
	if uid, ok := unmappedUser(); ok {
		o.uids = append(slices.Clone(o.uids), uid)
	}
	w := &walk{owners: o, make: make, todo: components(path)}
	return w.run()
}

// ownDir judges the directory itself, more strictly than those above it.
func (o Owners) ownDir(dir *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return err
	}
	if err := o.owner("the directory "+dir.Name(), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IWOTH != 0 { // the sticky bit is for directories of all
		return &Error{"the directory " + dir.Name(), fmt.Sprintf("can be written by everybody: chmod 700 %s makes it yours alone", dir.Name())}
	}
	return o.mode(dir.Name(), &st)
}

// walk opens a path, one name after the other.
type walk struct {
	owners Owners
	make   bool // what is missing
	todo   []string
	dir    *os.File // where it is; its name is the path so far
	links  int
}

func components(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == filepath.Separator })
}

func (w *walk) run() (*os.File, error) {
	if err := w.enterRoot(); err != nil {
		return nil, err
	}
	for len(w.todo) > 0 {
		name := w.todo[0]
		w.todo = w.todo[1:]
		if err := w.step(name); err != nil {
			w.dir.Close()
			return nil, err
		}
	}
	return w.dir, nil
}

func (w *walk) enterRoot() error {
	root, err := os.Open("/")
	if err != nil {
		return err
	}
	if w.dir != nil {
		w.dir.Close()
	}
	w.dir = root
	return nil
}

// step goes to a name in the directory.
func (w *walk) step(name string) error {
	path := filepath.Join(w.dir.Name(), name)
	if err := w.judge(w.dir); err != nil {
		return err
	}
	at := int(w.dir.Fd())
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) && w.make {
		if err := unix.Mkdirat(at, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			return &os.PathError{Op: "mkdir", Path: path, Err: err}
		}
		fd, err = unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if errors.Is(err, unix.EACCES) { // it may still be passed, as /root/x with mode 711
		fd, err = unix.Openat(at, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return w.follow(name, path)
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	w.dir.Close()
	w.dir = os.NewFile(uintptr(fd), path)
	return nil
}

// judge refuses a directory in which others could exchange what lies in it.
func (w *walk) judge(dir *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return err
	}
	if err := w.owners.owner("the directory "+dir.Name(), &st); err != nil {
		return err
	}
	if st.Uid == 0 && st.Mode&unix.S_IWOTH == 0 {
		return nil // the administrator knows whom the group is for
	}
	return w.owners.mode(dir.Name(), &st)
}

// follow goes where a link leads, if nobody else has put it there.
func (w *walk) follow(name, path string) error {
	at := int(w.dir.Fd())
	fd, err := unix.Openat(at, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return &os.PathError{Op: "open", Path: path, Err: unix.ENOTDIR}
	}
	if err := w.owners.owner("the link "+path, &st); err != nil {
		return err
	}
	if w.links++; w.links > maxLinks {
		return &os.PathError{Op: "open", Path: path, Err: unix.ELOOP}
	}
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", target) // of the link that was judged
	if err != nil {
		return &os.PathError{Op: "readlink", Path: path, Err: err}
	}
	to := string(target[:n])
	w.todo = append(components(to), w.todo...)
	if filepath.IsAbs(to) {
		return w.enterRoot()
	}
	return nil
}

// unmappedUser is who owns, in a user namespace, what belongs to users outside of
// it, such as the root directory of a rootless container. ok is false where all
// users are known.
func unmappedUser() (uid int, ok bool) {
	f, err := os.Open("/proc/self/uid_map")
	if err != nil {
		return 0, false
	}
	defer f.Close()
	if allMapped(f) {
		return 0, false
	}
	const overflow = 65534 // the kernel's, unless somebody changed a sysctl
	return overflow, true
}

// allMapped reads a uid_map (user_namespaces(7)).
func allMapped(r io.Reader) bool {
	const all = 1<<32 - 1
	for lines := bufio.NewScanner(r); lines.Scan(); {
		var inside, outside, count int64
		if _, err := fmt.Sscan(lines.Text(), &inside, &outside, &count); err == nil && count == all {
			return true
		}
	}
	return false
}
