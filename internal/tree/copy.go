package tree

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/sparse"
)

// Copy makes dest, which is missing or an empty directory, a copy of the
// directory source. Files share their blocks where the file system can do that,
// and holes stay holes elsewhere. Modes, times, links, pipes, sockets,
// attributes of the user (user.*) and, for root, owners are kept. Files that
// belong to root lose their set-id bits: whoever made them in source may not
// have been root. leftOut is called for each device, which the copy has not,
// but for the whiteouts of an overlay, which stand for nothing.
//
// Directories and files that their owner may not read are made readable to the
// owner, if that is the caller, while they are copied. After an error, dest is
// there in parts.
func Copy(ctx context.Context, source, dest string, leftOut func(path string)) (err error) {
	from, st, err := openRoot(source)
	if err != nil {
		return err
	}
	defer from.close()
	// However it ends, the modes of source are as they were.
	defer func() { err = errors.Join(err, restoreModes(from)) }()
	to, err := makeRoot(dest)
	if err != nil {
		return err
	}
	defer to.close()
	k := &copier{ctx: ctx, to: to, leftOut: leftOut, known: map[ID]*linked{}}
	if k.stage.parent, err = unix.FcntlInt(uintptr(to.fd()), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return err
	}
	defer unix.Close(k.stage.parent)
	if err = walk(ctx, from, k); err == nil {
		err = k.stage.remove(k.names)
	}
	if err == nil {
		err = keepAttributes(from.fd(), to.fd(), &st)
	}
	if err != nil {
		return fmt.Errorf("copying %s: %w", source, err)
	}
	return nil
}

// openRoot opens a directory, and no link to one, as the root of a tree of ours.
func openRoot(dir string) (*chain, unix.Stat_t, error) {
	pinned, st, err := pin(unix.AT_FDCWD, dir)
	if err != nil {
		return nil, st, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(pinned)
	if !isDir(&st) {
		return nil, st, &os.PathError{Op: "open", Path: dir, Err: unix.ENOTDIR}
	}
	err = makeUsable(pinned, &st, 0o500)
	fd := -1
	if err == nil {
		fd, err = open(pinned, unix.O_RDONLY|unix.O_DIRECTORY)
	}
	if err != nil {
		return nil, st, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	c, err := newChain(fd)
	if err == nil {
		c.top().st = st
	}
	return c, st, err
}

func makeRoot(dir string) (*chain, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return newChain(fd)
}

// restoreModes takes back what makeUsable did to the directories of a chain.
func restoreModes(c *chain) error {
	for {
		l := c.top()
		if err := restoreMode(l.fd, &l.st, 0o500); err != nil || c.depth() == 0 {
			return err
		}
		left, err := c.pop()
		if err != nil {
			return err
		}
		left.close()
	}
}

func restoreMode(fd int, st *unix.Stat_t, need uint32) error {
	if os.Geteuid() == 0 || uint32(os.Geteuid()) != st.Uid || st.Mode&need == need {
		return nil
	}
	return unix.Fchmod(fd, st.Mode&0o7777)
}

// copier is the visitor of the tree that is copied.
type copier struct {
	ctx     context.Context
	to      *chain // in step with the walk
	leftOut func(string)

	// What has several names is linked from stage to all of them.
	stage stage
	known map[ID]*linked
	names int // in the stage
}

// linked is a file of which more names are to come.
type linked struct {
	name string // in the stage
	left uint64
}

func (k *copier) failed(_ string, err error) error { return err }

func (k *copier) enter(e *entry) error {
	err := makeUsable(e.fd, &e.st, 0o500)
	if err == nil {
		err = unix.Mkdirat(k.to.fd(), e.name, 0o700)
	}
	fd := -1
	if err == nil {
		fd, err = unix.Openat(k.to.fd(), e.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err == nil {
		if err = k.to.push(fd, e.name); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		return e.failed(err)
	}
	return nil
}

func (k *copier) leave(e *entry) error {
	left, err := k.to.pop()
	if err != nil {
		return err
	}
	defer left.close()
	err = keepAttributes(e.fd, left.fd, &e.st)
	if err = errors.Join(err, restoreMode(e.fd, &e.st, 0o500)); err != nil {
		return e.failed(err)
	}
	return nil
}

func (k *copier) other(e *entry) error {
	l := k.known[idOf(&e.st)]
	if l != nil && unix.Linkat(k.stage.fd, l.name, k.to.fd(), e.name, 0) == nil {
		if l.left--; l.left == 0 {
			delete(k.known, idOf(&e.st))
		}
		return nil
	}
	// Not seen before, or it has as many names as the file system allows.
	if err := k.make(e); err != nil {
		return e.failed(err)
	}
	if l == nil && e.st.Nlink > 1 {
		return k.remember(e)
	}
	return nil
}

func (k *copier) make(e *entry) error {
	if isRegular(&e.st) {
		return k.file(e)
	}
	var err error
	switch e.st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		var target string
		if target, err = readlink(e.fd); err == nil {
			err = unix.Symlinkat(target, k.to.fd(), e.name)
		}
	case unix.S_IFIFO, unix.S_IFSOCK:
		err = unix.Mknodat(k.to.fd(), e.name, e.st.Mode&unix.S_IFMT|0o600, 0)
	default:
		if e.st.Mode&unix.S_IFMT != unix.S_IFCHR || e.st.Rdev != 0 {
			k.leftOut(Show(e.chain.path(e.name)))
			return nil
		}
		err = unix.Mknodat(k.to.fd(), e.name, unix.S_IFCHR|0o600, 0)
	}
	if err != nil {
		return err
	}
	fd, _, err := pin(k.to.fd(), e.name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := keepOwner(fd, &e.st); err != nil {
		return err
	}
	if !isLink(&e.st) {
		if err := unix.Fchmodat(unix.AT_FDCWD, proc(fd), e.st.Mode&0o777, 0); err != nil {
			return err
		}
	}
	return keepTimes(fd, &e.st)
}

func (k *copier) file(e *entry) error {
	if err := makeUsable(e.fd, &e.st, 0o400); err != nil {
		return err
	}
	fd, err := open(e.fd, unix.O_RDONLY)
	if err != nil {
		return err
	}
	in := os.NewFile(uintptr(fd), e.name)
	defer in.Close()
	fd, err = unix.Openat(k.to.fd(), e.name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(fd), e.name)
	err = sparse.Clone(k.ctx, in, out)
	if err == nil {
		err = keepAttributes(int(in.Fd()), int(out.Fd()), &e.st)
	}
	return errors.Join(err, out.Close(), restoreMode(int(in.Fd()), &e.st, 0o400))
}

// remember notes the copy of something that has more names.
func (k *copier) remember(e *entry) error {
	if err := k.stage.make(); err != nil {
		return err
	}
	name := strconv.Itoa(k.names)
	switch err := unix.Linkat(k.to.fd(), e.name, k.stage.fd, name, 0); {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EPERM), errors.Is(err, unix.EMLINK):
		return nil // left out, or a file system without hard links: each name gets a copy
	case err != nil:
		return e.failed(err)
	}
	k.known[idOf(&e.st)] = &linked{name, uint64(e.st.Nlink) - 1} // nlink_t differs between architectures
	k.names++
	return nil
}

// stage is a directory in the copy's root that is there during the copy.
type stage struct {
	parent int
	name   string
	fd     int
}

func (s *stage) make() (err error) {
	if s.name != "" {
		return nil
	}
	name := ".links-" + rand.Text()
	if err := unix.Mkdirat(s.parent, name, 0o700); err != nil {
		return err
	}
	s.name = name
	s.fd, err = unix.Openat(s.parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	return err
}

func (s *stage) remove(names int) error {
	if s.name == "" {
		return nil
	}
	var errs []error
	for i := range names {
		errs = append(errs, unix.Unlinkat(s.fd, strconv.Itoa(i), 0))
	}
	return errors.Join(errors.Join(errs...), unix.Close(s.fd), unix.Unlinkat(s.parent, s.name, unix.AT_REMOVEDIR))
}

// keepAttributes gives a file or directory what belongs to another one, both
// open.
func keepAttributes(in, out int, st *unix.Stat_t) error {
	if err := keepOwner(out, st); err != nil {
		return err
	}
	if err := keepUserAttributes(in, out); err != nil {
		return err
	}
	mode := st.Mode & 0o7777
	if isRegular(st) && (st.Uid == 0 || st.Gid == 0) {
		mode &^= unix.S_ISUID | unix.S_ISGID
	}
	// After the owner, whose change clears bits, and the attributes, which need
	// the permission to write.
	if err := unix.Fchmod(out, mode); err != nil {
		return err
	}
	return keepTimes(out, st)
}

// keepOwner sets owner and group, as far as the caller may. The file may be
// pinned only.
func keepOwner(fd int, st *unix.Stat_t) error {
	var is unix.Stat_t
	if unix.Fstat(fd, &is) == nil && is.Uid == st.Uid && is.Gid == st.Gid {
		return nil // the most frequent case, and a change costs the file system a transaction
	}
	err := unix.Fchownat(fd, "", int(st.Uid), int(st.Gid), unix.AT_EMPTY_PATH)
	if err == nil || os.Geteuid() == 0 {
		return err
	}
	_ = unix.Fchownat(fd, "", -1, int(st.Gid), unix.AT_EMPTY_PATH) // one of the caller's groups, perhaps
	return nil
}

func keepTimes(fd int, st *unix.Stat_t) error {
	return setTimes(fd, st.Atim, st.Mtim)
}

func setTimes(fd int, atime, mtime unix.Timespec) error {
	return unix.UtimesNanoAt(fd, "", []unix.Timespec{atime, mtime}, unix.AT_EMPTY_PATH)
}

// keepUserAttributes copies extended attributes that anybody may set.
func keepUserAttributes(in, out int) error {
	buf := make([]byte, 1<<16) // the largest that Linux has, for the list and a value (xattr(7))
	n, err := unix.Flistxattr(in, buf)
	if err != nil || n == 0 {
		return nil // the file system has none
	}
	value := make([]byte, 1<<16)
	for name := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		if !strings.HasPrefix(name, "user.") {
			continue
		}
		size, err := unix.Fgetxattr(in, name, value)
		if err == nil {
			err = unix.Fsetxattr(out, name, value[:size], 0)
		}
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("the attribute %s: %w", Show(name), err)
		}
	}
	return nil
}
