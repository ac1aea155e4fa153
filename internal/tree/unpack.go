package tree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// Unpack reads a tar stream of one file, link or directory tree called name
// and puts it to dest: into dest if that is a directory, and else under the
// name of dest, whose parent must exist. A name of "." stands for the contents
// of a directory, which go into dest itself.
//
// The stream is not trusted. Every path in it must be below name; nothing is
// written through a symbolic link, whether it was there before or came with the
// stream; special files and the set-uid, set-gid and sticky bits are left out,
// the former with a call of skipped. Modes and times are kept; owners are not.
func Unpack(r io.Reader, name, dest string, skipped func(path string)) error {
	u := &unpacker{tar: tar.NewReader(r), name: name, skipped: skipped}
	h, err := u.tar.Next()
	if errors.Is(err, io.EOF) {
		return errors.New("the guest sent nothing")
	}
	if err != nil {
		return fmt.Errorf("reading what the guest sent: %w", err)
	}
	if path.Clean(h.Name) != name {
		return fmt.Errorf("the guest sent %q and not %q", h.Name, name)
	}
	if h.Typeflag == tar.TypeDir {
		return u.tree(h, dest)
	}
	return u.single(h, dest)
}

type unpacker struct {
	tar     *tar.Reader
	name    string
	skipped func(string)

	root   *os.Root
	merged bool          // what is in a directory goes to another, which stays itself
	dirs   []*tar.Header // whose modes and times come last
}

// single puts down a stream of one entry that is no directory.
func (u *unpacker) single(h *tar.Header, dest string) error {
	dir, base := filepath.Split(dest)
	info, err := os.Stat(dest)
	switch {
	case err == nil && info.IsDir():
		dir, base = dest, u.name
	case base == "":
		return fmt.Errorf("%s is not a directory: make it first, or leave out the slash", dest)
	}
	if !validName(base) {
		return fmt.Errorf("the name %q cannot be that of a file", base)
	}
	if err := u.open(filepath.Clean(dir)); err != nil {
		return err
	}
	defer u.root.Close()
	if err := u.put(h, base); err != nil {
		return err
	}
	if _, err := u.tar.Next(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("the guest sent more than the one file")
		}
		return err
	}
	return nil
}

// tree puts down a directory and all that is in it. The root is the directory
// itself, so that whatever the stream says, nothing beside it is in reach.
func (u *unpacker) tree(top *tar.Header, dest string) error {
	if err := u.openTree(dest); err != nil {
		return err
	}
	defer u.root.Close()
	if !u.merged {
		top.Name = "."
		u.dirs = append(u.dirs, top)
	}
	for {
		h, err := u.tar.Next()
		if errors.Is(err, io.EOF) {
			return u.finishDirs()
		}
		if err != nil {
			return fmt.Errorf("reading what the guest sent: %w", err)
		}
		if h.Name, err = u.below(h.Name); err == nil {
			err = u.put(h, h.Name)
		}
		if err != nil {
			return err
		}
	}
}

// openTree makes the directory for the tree, unless it is there, and opens it.
func (u *unpacker) openTree(dest string) error {
	info, err := os.Stat(dest)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.Mkdir(dest, 0o700); err != nil {
			return err
		}
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is a file, but what is copied is a directory", dest)
	case u.name != ".":
		return u.openIn(dest)
	default:
		u.merged = true
	}
	return u.open(dest)
}

// openIn opens the tree's own directory in dest. The person has chosen dest,
// with all links on the way; a link in it may be from the guest that shares it.
func (u *unpacker) openIn(dest string) error {
	if !validName(u.name) {
		return fmt.Errorf("the name %q cannot be that of a directory", u.name)
	}
	if err := u.open(dest); err != nil {
		return err
	}
	parent := u.root
	defer parent.Close()
	if err := u.directories(u.name); err != nil {
		return err
	}
	root, err := parent.OpenRoot(u.name)
	u.root = root
	return err
}

func (u *unpacker) open(dir string) (err error) {
	u.root, err = os.OpenRoot(dir)
	return err
}

func validName(base string) bool {
	return base != "." && filepath.IsLocal(base) && filepath.Base(base) == base
}

// below turns a name of the stream into a path in the root.
func (u *unpacker) below(name string) (string, error) {
	clean := path.Clean(name)
	rel := clean
	if u.name != "." {
		var ok bool
		if rel, ok = strings.CutPrefix(clean, u.name+"/"); !ok {
			if clean != u.name {
				return "", fmt.Errorf("the guest sent the path %q, which is not in %q: nothing more is copied", name, u.name)
			}
			rel = "."
		}
	}
	// A name with .. in it is refused even where it leads nowhere else.
	if !filepath.IsLocal(rel) || hasDotDot(name) {
		return "", fmt.Errorf("the guest sent the path %q, which leads out of the destination: nothing more is copied", name)
	}
	return rel, nil
}

func hasDotDot(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return true
		}
	}
	return false
}

// put makes one entry of the stream.
func (u *unpacker) put(h *tar.Header, name string) error {
	switch h.Typeflag {
	case tar.TypeDir:
		if err := u.directories(name); err != nil {
			return err
		}
		if name != "." {
			u.dirs = append(u.dirs, h)
		}
		return nil
	case tar.TypeReg, tar.TypeSymlink, tar.TypeLink:
	default:
		u.skipped(h.Name)
		return nil
	}
	if err := u.directories(path.Dir(name)); err != nil {
		return err
	}
	// What was there is replaced and not written to: it may be a link.
	if err := u.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		return u.root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return u.link(h, name)
	}
	return u.file(h, name)
}

// link makes a hard link to something that the stream brought before, which
// Root.Link looks for in the root only.
func (u *unpacker) link(h *tar.Header, name string) error {
	target, err := u.below(h.Linkname)
	if err != nil {
		return err
	}
	info, err := u.root.Lstat(target)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("the guest sent %q as a link to %q, which is no file", name, h.Linkname)
	}
	if err := u.directories(path.Dir(target)); err != nil {
		return err
	}
	return u.root.Link(target, name)
}

func (u *unpacker) file(h *tar.Header, name string) error {
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, u.tar)
	if err == nil {
		err = f.Chmod(mode(h))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return u.root.Chtimes(name, time.Time{}, h.ModTime)
}

// directories makes the directory and those above it, and refuses to go
// through a link.
func (u *unpacker) directories(name string) error {
	if name == "." {
		return nil
	}
	if err := u.directories(path.Dir(name)); err != nil {
		return err
	}
	// Closed to others, and open to us, until its own mode is set.
	err := u.root.Mkdir(name, 0o700)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := u.root.Lstat(name)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is no directory, or a link to one, and nothing is written through a link: nothing more is copied", path.Join(u.root.Name(), name))
	}
	if info.Mode().Perm()&0o700 != 0o700 {
		return u.root.Chmod(name, info.Mode().Perm()|0o700)
	}
	return nil
}

// finishDirs sets the modes and times of directories, the innermost first: to
// write in one changes its time, and may need more than its mode allows.
func (u *unpacker) finishDirs() error {
	var errs []error
	for i := len(u.dirs) - 1; i >= 0; i-- {
		h := u.dirs[i]
		name := path.Clean(h.Name)
		info, err := u.root.Lstat(name)
		if err == nil && !info.IsDir() {
			err = fmt.Errorf("%s was replaced while it was copied", name)
		}
		if err == nil {
			err = u.root.Chtimes(name, time.Time{}, h.ModTime)
		}
		if err == nil {
			err = u.root.Chmod(name, mode(h))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func mode(h *tar.Header) fs.FileMode { return fs.FileMode(h.Mode) & fs.ModePerm }
