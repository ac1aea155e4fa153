package tree

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Pack writes the file, link or directory tree at source to w as a tar stream
// in which it is called name; a name of "." stands for the contents of a
// directory. Modes, times to the nanosecond and symbolic links are kept,
// owners are not. Sockets, pipes and devices are left out, and skipped is
// called with the path of each.
//
// Somebody else may change the tree meanwhile, such as a guest that shares it:
// no link is ever followed out of it.
func Pack(w io.Writer, source, name string, skipped func(path string)) error {
	info, err := os.Lstat(source)
	if err != nil {
		return err
	}
	dir, base := source, "."
	if !info.IsDir() {
		dir, base = filepath.Split(source)
		dir = filepath.Clean(dir)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	p := &packer{root: root, dir: dir, tar: tar.NewWriter(w), skipped: skipped}
	if err := p.walk(base, name); err != nil {
		return err
	}
	return p.tar.Close()
}

type packer struct {
	root    *os.Root
	dir     string // the root's path, for messages
	tar     *tar.Writer
	skipped func(string)
}

// walk packs what is at from in the root, as name.
func (p *packer) walk(from, name string) error {
	info, err := p.root.Lstat(from)
	if err != nil {
		return err
	}
	switch info.Mode().Type() {
	case 0:
		return p.file(from, name)
	case fs.ModeSymlink:
		target, err := p.root.Readlink(from)
		if err != nil {
			return err
		}
		return p.header(info, target, name)
	case fs.ModeDir:
		return p.directory(info, from, name)
	}
	p.skipped(filepath.Join(p.dir, from))
	return nil
}

func (p *packer) directory(info fs.FileInfo, from, name string) error {
	if name != "." { // else where it goes stays what it is
		if err := p.header(info, "", name+"/"); err != nil {
			return err
		}
	}
	d, err := p.open(from, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	entries, err := d.ReadDir(-1)
	d.Close()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := p.walk(path.Join(from, e.Name()), path.Join(name, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) file(from, name string) error {
	f, err := p.open(from, unix.O_NONBLOCK) // it may have become a pipe
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s changed while it was copied", filepath.Join(p.dir, from))
	}
	if err := p.header(info, "", name); err != nil {
		return err
	}
	if _, err := io.CopyN(p.tar, f, info.Size()); err == io.EOF {
		return fmt.Errorf("%s became shorter while it was copied", filepath.Join(p.dir, from))
	} else if err != nil {
		return err
	}
	return nil
}

func (p *packer) open(name string, flags int) (*os.File, error) {
	return p.root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|flags, 0)
}

func (p *packer) header(info fs.FileInfo, link, name string) error {
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name, h.Format = name, tar.FormatPAX
	h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
	return p.tar.WriteHeader(h)
}
