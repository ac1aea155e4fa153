package tree

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// UnpackOptions say how a stream is unpacked.
type UnpackOptions struct {
	Rules
	// LeftOut is called for each special file of the stream that is not made.
	LeftOut func(path string)
}

// Unpack reads a tar stream of one file, link or directory tree called name
// and puts it to dest: into dest if that is a directory, and else under the
// name of dest, whose parent must exist. A name of "." stands for the contents
// of a directory, which go into dest itself. A file is written to a pipe or
// device that is dest.
//
// The stream is not trusted. Every path in it must be below name; nothing is
// written through a symbolic link, whether it was there before or came with the
// stream; special files and the set-uid, set-gid and sticky bits are left out,
// the former with a call of o.LeftOut. Modes and times are kept; owners are
// not. Files and links that are there are replaced; pipes, sockets and devices
// are not, which is an error.
func Unpack(ctx context.Context, r io.Reader, name, dest string, o UnpackOptions) error {
	u, err := newUnpacker(ctx, r, name, dest, o)
	if err != nil {
		return err
	}
	defer u.close()
	h, err := u.next()
	if errors.Is(err, io.EOF) {
		return errors.New("the other side sent nothing")
	}
	if err != nil {
		return err
	}
	if path.Clean(h.Name) != name {
		return fmt.Errorf("the other side sent %s and not %s: nothing is copied", Show(h.Name), Show(name))
	}
	if h.Typeflag == tar.TypeDir {
		return u.tree(h)
	}
	return u.single(h)
}

// UnpackArchive unpacks any tar archive into the directory dest, where nothing
// in it leads out of. Holes of sparse files stay holes.
func UnpackArchive(ctx context.Context, r io.Reader, dest string, o UnpackOptions) error {
	u, err := newUnpacker(ctx, r, ".", dest, o)
	if err != nil {
		return err
	}
	defer u.close()
	u.archive = true
	if !u.dest.isDir() {
		return fmt.Errorf("%s is no directory, which an archive needs as its destination", Show(dest))
	}
	if err := u.openRoot(unix.Openat(u.dest.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)); err != nil {
		return err
	}
	return u.entries()
}

type unpacker struct {
	ctx     context.Context
	tar     *tar.Reader
	name    string
	o       UnpackOptions
	archive bool // of another program

	dest *found
	top  string // the path of root, for messages
	root int    // the directory below which everything goes
	c    *chain // from there to where the last entry went
	at   []*node
	dirs []*node     // whose modes and times come last
	made map[ID]bool // links of this stream, which are not gone through
}

func newUnpacker(ctx context.Context, r io.Reader, name, dest string, o UnpackOptions) (*unpacker, error) {
	d, err := o.find(dest)
	if err != nil {
		return nil, err
	}
	return &unpacker{ctx: ctx, tar: tar.NewReader(r), name: name, o: o, dest: d, top: d.typed, root: -1, made: map[ID]bool{}}, nil
}

func (u *unpacker) close() {
	u.dest.close()
	if u.c != nil {
		u.c.close()
	}
	if u.root >= 0 {
		unix.Close(u.root)
	}
}

// next returns the next entry that says something about a file.
func (u *unpacker) next() (*tar.Header, error) {
	for {
		if u.ctx.Err() != nil {
			return nil, context.Cause(u.ctx)
		}
		h, err := u.tar.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil, err
		case err != nil:
			return nil, fmt.Errorf("reading what the other side sent: %w", err)
		case h.Typeflag != tar.TypeXGlobalHeader:
			return h, nil
		}
	}
}

// openRoot makes the directory at fd the one below which everything goes.
func (u *unpacker) openRoot(fd int, err error) error {
	if err != nil {
		return &os.PathError{Op: "open", Path: u.dest.typed, Err: err}
	}
	if u.c, err = newChain(fd); err != nil {
		return err
	}
	u.at = []*node{{}}
	u.root, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	return err
}

// single puts down a stream of one entry that is no directory.
func (u *unpacker) single(h *tar.Header) (err error) {
	base := u.dest.base
	switch {
	case u.dest.isStream():
		err = u.through(h)
	case u.dest.isDir():
		base = u.name
		err = u.openRoot(unix.Openat(u.dest.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0))
	case u.dest.slash || u.dest.contents:
		return fmt.Errorf("%s is not a directory: make it first, or leave out the slash", Show(u.dest.typed))
	default:
		u.top = path.Dir(u.dest.typed)
		err = u.openRoot(unix.Openat(u.dest.dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0))
	}
	if err == nil && !u.dest.isStream() {
		if !validName(base) {
			return fmt.Errorf("the name %s cannot be that of a file", Show(base))
		}
		err = u.put(h, base)
	}
	if err != nil {
		return err
	}
	if _, err := u.next(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("the other side sent more than the one file: nothing more is copied")
		}
		return err
	}
	return nil
}

// through writes a file to the pipe or device that the destination is.
func (u *unpacker) through(h *tar.Header) error {
	if !isFile(h) {
		return fmt.Errorf("%s is a pipe or a device, but what is copied is no file", Show(u.dest.typed))
	}
	f, err := u.dest.stream(u.ctx, unix.O_WRONLY)
	if err != nil {
		return err
	}
	return errors.Join(u.content(h, &zeroWriter{w: f}), f.Close())
}

// tree puts down a directory and all that is in it. The root is the directory
// itself, so that whatever the stream says, nothing beside it is in reach.
func (u *unpacker) tree(top *tar.Header) error {
	switch {
	case u.dest.missing():
		if err := unix.Mkdirat(u.dest.dir, u.dest.base, 0o700); err != nil {
			return &os.PathError{Op: "mkdir", Path: u.dest.typed, Err: err}
		}
		if err := u.openRoot(unix.Openat(u.dest.dir, u.dest.base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)); err != nil {
			return err
		}
		u.note(top)
	case !u.dest.isDir():
		return fmt.Errorf("%s is no directory, but what is copied is one", Show(u.dest.typed))
	default:
		if err := u.openRoot(unix.Openat(u.dest.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)); err != nil {
			return err
		}
		if u.name != "." { // else the contents go to another directory, which stays itself
			if err := u.openIn(top); err != nil {
				return err
			}
		}
	}
	return u.entries()
}

// openIn makes the tree's own directory in the destination the root.
func (u *unpacker) openIn(top *tar.Header) error {
	if !validName(u.name) {
		return fmt.Errorf("the name %s cannot be that of a directory", Show(u.name))
	}
	if err := u.down(u.name); err != nil {
		return err
	}
	fd, err := unix.FcntlInt(uintptr(u.c.fd()), unix.F_DUPFD_CLOEXEC, 0)
	u.c.close()
	unix.Close(u.root)
	u.root, u.top = -1, path.Join(u.top, u.name)
	if err := u.openRoot(fd, err); err != nil {
		return err
	}
	u.note(top)
	return nil
}

func (u *unpacker) entries() error {
	for {
		h, err := u.next()
		if errors.Is(err, io.EOF) {
			return u.finishDirs()
		}
		if err != nil {
			return err
		}
		rel, err := u.below(h.Name)
		if err == nil {
			err = u.put(h, rel)
		}
		if err != nil {
			return err
		}
	}
}

func validName(base string) bool {
	return base != "." && filepath.IsLocal(base) && filepath.Base(base) == base
}

// below turns a name of the stream into a path in the root.
func (u *unpacker) below(name string) (string, error) {
	if u.archive {
		name = strings.TrimLeft(name, "/")
	}
	clean := path.Clean(name)
	rel := clean
	if u.name != "." {
		var ok bool
		if rel, ok = strings.CutPrefix(clean, u.name+"/"); !ok {
			if clean != u.name {
				return "", fmt.Errorf("the other side sent the path %s, which is not in %s: nothing more is copied", Show(name), Show(u.name))
			}
			rel = "."
		}
	}
	// A name with .. in it is refused even where it leads nowhere else.
	if !filepath.IsLocal(rel) || slices.Contains(strings.Split(name, "/"), "..") {
		return "", fmt.Errorf("the other side sent the path %s, which leads out of the destination: nothing more is copied", Show(name))
	}
	return rel, nil
}
