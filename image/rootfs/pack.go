package rootfs

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/sourcery-zone/sandbox/image/erofs"
)

// Entry is a file, a directory (its name ends in a slash) or a symbolic link that
// belongs to root and has the time of the build.
type Entry struct {
	Name string // relative to the root
	Mode int64
	Data string
	Link string // makes it a symbolic link
}

func (e Entry) header() *tar.Header {
	h := &tar.Header{Name: e.Name, Mode: e.Mode, Size: int64(len(e.Data)), Typeflag: tar.TypeReg}
	switch {
	case e.Link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.Link, 0o777
	case strings.HasSuffix(e.Name, "/"):
		h.Typeflag = tar.TypeDir
	}
	return h
}

// Options say what becomes of a system.
type Options struct {
	// Options are those of the store.
	erofs.Options
	// Overlay replaces what the system has by these names, and adds what it has
	// not.
	Overlay []Entry
	// Visit is called for every other entry of the stream, by its path relative
	// to the root. It returns what is to be stored as the entry's content: r, or
	// something of the same length where it has read from r. If its error is
	// [ErrSkip], the entry is not stored; any other one ends the work. Nil stores
	// everything.
	Visit func(name string, h *tar.Header, r io.Reader) (io.Reader, error)
}

// ErrSkip is what Visit returns of an entry that is not to be stored.
var ErrSkip = errors.New("this entry is skipped")

// linkFrom is the size from which it saves space to store equal files once.
const linkFrom = 4096

// Pack writes the system in the tar stream r to out, which it leaves open. Equal
// files of one mode and owner become one with several names.
func Pack(r io.Reader, out *os.File, o Options) error {
	store, err := erofs.Create(out, o.Options)
	if err != nil {
		return err
	}
	p := &packer{store: store, visit: o.Visit, ours: map[string]bool{}, stored: map[string]string{}}
	for _, e := range o.Overlay {
		p.ours[path.Clean(e.Name)] = true
	}
	if err := p.stream(r); err != nil {
		return err
	}
	for _, e := range o.Overlay {
		h := e.header()
		h.ModTime = o.BuildTime
		if err := store.Add(h, strings.NewReader(e.Data)); err != nil {
			return err
		}
	}
	return errors.Join(store.Close(), out.Sync())
}

// packer takes a tar stream of a whole system apart.
type packer struct {
	store  *erofs.Writer
	visit  func(string, *tar.Header, io.Reader) (io.Reader, error)
	ours   map[string]bool   // paths that the overlay replaces
	stored map[string]string // the first name of each content, mode and owner
}

func (p *packer) stream(r io.Reader) error {
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the system: %w", err)
		}
		if err := p.entry(h, tr); err != nil {
			return err
		}
	}
}

func (p *packer) entry(h *tar.Header, r io.Reader) error {
	name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	if p.ours[name] {
		return nil
	}
	if p.visit != nil {
		var err error
		if r, err = p.visit(name, h, r); err != nil {
			if errors.Is(err, ErrSkip) {
				return nil
			}
			return err
		}
	}
	return p.add(h, r)
}

// add stores a file, or a further name of an equal one.
func (p *packer) add(h *tar.Header, r io.Reader) error {
	if h.Typeflag != tar.TypeReg || h.Size < linkFrom || len(h.PAXRecords) > 0 {
		return p.store.Add(h, r)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("reading the system: %s: %w", h.Name, err)
	}
	key := fmt.Sprintf("%x %o %d:%d", sha256.Sum256(data), h.Mode, h.Uid, h.Gid)
	first, ok := p.stored[key]
	if !ok {
		p.stored[key] = h.Name
		return p.store.Add(h, bytes.NewReader(data))
	}
	link := *h
	link.Typeflag, link.Linkname, link.Size = tar.TypeLink, first, 0
	return p.store.Add(&link, nil)
}
