package tree

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"
)

func isFile(h *tar.Header) bool {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return true
	}
	return false
}

// put makes one entry of the stream.
func (u *unpacker) put(h *tar.Header, rel string) error {
	if h.Typeflag == tar.TypeDir {
		names := split(rel)
		if rel == "." {
			names = nil
		}
		if err := u.moveTo(names, u.down); err != nil {
			return err
		}
		if rel != "." {
			u.note(h)
		}
		return nil
	}
	names := split(rel)
	base := names[len(names)-1]
	if base == "." {
		return fmt.Errorf("%s is a directory, but the other side sent it as something else: nothing more is copied", Show(u.dest.typed))
	}
	create, ok := u.maker(h)
	if !ok {
		u.o.LeftOut(Show(h.Name))
		return nil
	}
	if err := u.moveTo(names[:len(names)-1], u.down); err != nil {
		return err
	}
	// What was there is replaced and not written to: it may be a link.
	if err := u.clear(base); err != nil {
		return err
	}
	if err := create(h, base); err != nil {
		return u.failed(base, err)
	}
	return nil
}

// maker returns what makes an entry's kind of file, if it is to be made.
func (u *unpacker) maker(h *tar.Header) (create func(h *tar.Header, base string) error, ok bool) {
	switch {
	case isFile(h):
		return u.file, true
	case h.Typeflag == tar.TypeSymlink:
		return u.symlink, true
	case h.Typeflag == tar.TypeLink:
		return u.link, true
	case u.o.Guest && (h.Typeflag == tar.TypeFifo || h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock):
		return u.special, true
	}
	return nil, false
}

// clear removes what is to be replaced.
func (u *unpacker) clear(base string) error {
	fd, st, err := pin(u.c.fd(), base)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return u.failed(base, err)
	}
	unix.Close(fd)
	switch {
	case isDir(&st):
		err = errors.New("there is a directory of that name, which is not replaced")
	case isRegular(&st) || isLink(&st):
		err = unix.Unlinkat(u.c.fd(), base, 0)
	default:
		err = errors.New("there is a pipe, a socket or a device of that name, which is not replaced")
	}
	if err != nil {
		return u.failed(base, err)
	}
	return nil
}

func (u *unpacker) failed(base string, err error) error {
	return fmt.Errorf("writing %s: %w", Show(path.Join(u.top, u.c.path(base))), err)
}

func (u *unpacker) symlink(h *tar.Header, base string) error {
	if err := unix.Symlinkat(h.Linkname, u.c.fd(), base); err != nil {
		return err
	}
	fd, st, err := pin(u.c.fd(), base)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if u.o.Guest {
		u.made[idOf(&st)] = true
	}
	return u.times(fd, h.ModTime)
}

// link makes a hard link to something that the stream brought before.
func (u *unpacker) link(h *tar.Header, base string) error {
	target, err := u.below(h.Linkname)
	if err != nil {
		return err
	}
	names := split(target)
	dir, err := u.locate(names[:len(names)-1])
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	fd, st, err := pin(dir, names[len(names)-1])
	if err != nil {
		return err
	}
	unix.Close(fd)
	if !isRegular(&st) {
		return fmt.Errorf("the other side sent it as a link to %s, which is no file", Show(h.Linkname))
	}
	return unix.Linkat(dir, names[len(names)-1], u.c.fd(), base, 0)
}

// locate opens a directory below the root without following links.
func (u *unpacker) locate(names []string) (int, error) {
	fd, err := unix.FcntlInt(uintptr(u.root), unix.F_DUPFD_CLOEXEC, 0)
	for _, name := range names {
		if err != nil {
			return -1, err
		}
		var next int
		next, err = unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		fd = next
	}
	return fd, err
}

func (u *unpacker) special(h *tar.Header, base string) error {
	kind := map[byte]uint32{tar.TypeFifo: unix.S_IFIFO, tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK}[h.Typeflag]
	if err := unix.Mknodat(u.c.fd(), base, kind|0o600, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))); err != nil {
		return err
	}
	fd, _, err := pin(u.c.fd(), base)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fchmodat(unix.AT_FDCWD, proc(fd), u.mode(h), 0); err != nil {
		return err
	}
	return u.times(fd, h.ModTime)
}

func (u *unpacker) file(h *tar.Header, base string) error {
	fd, err := unix.Openat(u.c.fd(), base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	err = u.content(h, &holeWriter{f: f})
	if err == nil {
		err = unix.Fchmod(fd, u.mode(h))
	}
	if err == nil {
		err = u.times(fd, h.ModTime)
	}
	return errors.Join(err, f.Close())
}

func (u *unpacker) mode(h *tar.Header) uint32 {
	if u.o.Guest {
		return uint32(h.Mode) & 0o7777
	}
	return uint32(h.Mode) & 0o777
}

func (u *unpacker) times(fd int, mtime time.Time) error {
	t, err := unix.TimeToTimespec(mtime)
	if err != nil {
		return err
	}
	return setTimes(fd, unix.Timespec{Nsec: unix.UTIME_OMIT}, t)
}
