package trust

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Open opens a regular file for reading, if it counts: it and its directory
// belong to the owners and can be written by nobody else, and so does a link in
// its place. The error is an [*Error] if it does not count, and else that of the
// system, such as os.ErrNotExist.
func (o Owners) Open(path string) (*os.File, error) {
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	defer unix.Close(dir)
	name := filepath.Base(path)
	var link unix.Stat_t
	if err := unix.Fstatat(dir, name, &link, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if err := o.inDirectory(path, dir, &link); err != nil {
		return nil, err
	}
	// Not to wait for the writer of a fifo.
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	if err := o.opened(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// OpenPrivate opens a regular file for reading that is the caller's and that nobody else may read or write, in a directory
// of the same kind, and no link. The error is an [*Error] if it is not that, and else that of the system.
func OpenPrivate(path string) (*os.File, error) {
	// Who has become root by sudo is not whom root believes here.
	f, err := Caller(func(string) string { return "" }).Open(path)
	if err != nil {
		return nil, err
	}
	if err := private(f, path); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func private(f *os.File, path string) error {
	link, err := os.Lstat(path)
	if err != nil {
		return err
	}
	opened, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !os.SameFile(link, opened):
		return &Error{path, "is a link"}
	case opened.Mode().Perm()&0o077 != 0:
		return &Error{path, "is a file that others may read, and may have read"}
	}
	return nil
}

// inDirectory judges what is at a name, and the directory that has it.
func (o Owners) inDirectory(path string, dir int, link *unix.Stat_t) error {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return err
	}
	if err := o.owner(path, link); err != nil {
		return err
	}
	if err := o.owner("the directory "+filepath.Dir(path), &st); err != nil {
		return err
	}
	return o.mode(filepath.Dir(path), &st)
}

func (o Owners) opened(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%s is no regular file", f.Name())
	}
	if err := o.owner(f.Name(), &st); err != nil {
		return err
	}
	return o.mode(f.Name(), &st)
}
