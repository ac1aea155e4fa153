package erofs

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	goerofs "github.com/erofs/go-erofs"
	"golang.org/x/sys/unix"
)

// xattrPrefix is how PAX headers of GNU tar, star and mmdebstrap carry extended
// attributes.
const xattrPrefix = "SCHILY.xattr."

// Options describe the file system as a whole.
type Options struct {
	// Label is the volume label, at most 15 bytes.
	Label string
	// BlockSize in bytes is a power of two from 512 on, or 0 for the usual 4096. A
	// file above it takes whole blocks. Linux mounts one below its page size since 6.4.
	BlockSize int
	// BuildTime is stamped on the file system. Entries that are newer get it
	// too, so that what an installer wrote "now" does not change the bytes.
	BuildTime time.Time
	// TempDir holds the data until Close; it needs as much space as the
	// result. Empty means the system's default.
	TempDir string
}

// Writer collects entries and writes the file system when it is closed.
type Writer struct {
	out   *os.File
	w     *goerofs.Writer
	o     Options
	links map[string]string // path of a further name -> path of the first name
}

// Create returns a Writer whose Close writes to out. The caller keeps out and
// closes it.
func Create(out *os.File, o Options) (*Writer, error) {
	if len(o.Label) > 15 {
		return nil, fmt.Errorf("the volume label %q is longer than 15 bytes", o.Label)
	}
	options := []goerofs.CreateOpt{goerofs.WithBuildTime(uint64(o.BuildTime.Unix()), 0), goerofs.WithTempDir(o.TempDir)}
	if o.BlockSize != 0 {
		options = append(options, goerofs.WithBlockSize(o.BlockSize))
	}
	return &Writer{out: out, o: o, w: goerofs.Create(out, options...), links: map[string]string{}}, nil
}

// Add adds the entry that h describes, with its content from r. A hard link's
// target must have been added before it, as tar guarantees.
func (w *Writer) Add(h *tar.Header, r io.Reader) error {
	name := clean(h.Name)
	if err := w.add(name, h, r); err != nil {
		return fmt.Errorf("packing %s: %w", name, err)
	}
	return nil
}

func (w *Writer) add(name string, h *tar.Header, r io.Reader) error {
	var err error
	switch h.Typeflag {
	case tar.TypeReg:
		err = w.file(name, r)
	case tar.TypeDir:
		err = w.directory(name)
	case tar.TypeSymlink:
		err = w.w.Symlink(h.Linkname, name)
	case tar.TypeChar:
		err = w.w.Mknod(name, unix.S_IFCHR, device(h))
	case tar.TypeBlock:
		err = w.w.Mknod(name, unix.S_IFBLK, device(h))
	case tar.TypeFifo:
		err = w.w.Mknod(name, unix.S_IFIFO, 0)
	case tar.TypeLink:
		return w.link(name, clean(h.Linkname))
	default:
		err = fmt.Errorf("its tar type %q has no meaning in a file system", h.Typeflag)
	}
	if err != nil {
		return err
	}
	return w.metadata(name, h)
}

// directory makes a directory, unless an entry below it or an earlier layer
// already implied it.
func (w *Writer) directory(name string) error {
	if info, err := w.w.Stat(name); err == nil && info.IsDir() {
		return nil
	}
	return w.w.Mkdir(name, 0o755)
}

func (w *Writer) file(name string, r io.Reader) error {
	f, err := w.w.Create(name)
	if err != nil {
		return err
	}
	if _, err := f.ReadFrom(r); err != nil {
		return err
	}
	return f.Close()
}

// link adds a placeholder, which Close turns into a second name of target's
// inode: go-erofs itself knows one name for each inode only.
func (w *Writer) link(name, target string) error {
	if first, ok := w.links[target]; ok {
		target = first
	}
	info, err := w.w.Stat(target)
	if err != nil {
		return fmt.Errorf("it is a hard link to %s, which did not come before it", target)
	}
	if info.IsDir() {
		return errors.New("it is a hard link to a directory")
	}
	if err := w.file(name, strings.NewReader("")); err != nil {
		return err
	}
	w.links[name] = target
	return nil
}

func (w *Writer) metadata(name string, h *tar.Header) error {
	if h.Typeflag != tar.TypeSymlink {
		if err := w.w.Chmod(name, h.FileInfo().Mode()); err != nil {
			return err
		}
	}
	if err := w.w.Chown(name, h.Uid, h.Gid); err != nil {
		return err
	}
	mtime := h.ModTime.Truncate(time.Second)
	if mtime.After(w.o.BuildTime) {
		mtime = w.o.BuildTime
	}
	if err := w.w.Chtimes(name, mtime, mtime); err != nil {
		return err
	}
	for key, value := range h.PAXRecords {
		attr, ok := strings.CutPrefix(key, xattrPrefix)
		if !ok {
			continue
		}
		if strings.HasPrefix(attr, "system.posix_acl_") {
			// go-erofs knows these two with a dot at the end, as if they were
			// prefixes; on disk the name after it is empty, as it must be.
			attr += "."
		}
		if err := w.w.Setxattr(name, attr, value); err != nil {
			return err
		}
	}
	return nil
}

// Close writes the file system to the output. It does not close the output.
func (w *Writer) Close() error {
	counts := map[string]uint32{}
	for _, target := range w.links {
		counts[target]++
	}
	for target, further := range counts {
		if err := w.w.SetNlink(target, further+1); err != nil {
			return err
		}
	}
	if err := w.w.Close(); err != nil {
		return fmt.Errorf("writing the store: %w", err)
	}
	p, err := newPatcher(w.out)
	if err != nil {
		return err
	}
	if err := p.label(w.o.Label); err != nil {
		return err
	}
	for name, target := range w.links {
		if err := p.relink(name, target); err != nil {
			return fmt.Errorf("linking %s to %s: %w", name, target, err)
		}
	}
	return nil
}

// clean gives the absolute form of a tar name, which cannot leave the root.
func clean(name string) string { return path.Clean("/" + name) }

// device is Linux's 32-bit encoding of a device number (new_encode_dev).
func device(h *tar.Header) uint32 {
	major, minor := uint32(h.Devmajor), uint32(h.Devminor)
	return minor&0xff | major<<8 | (minor&^0xff)<<12
}
