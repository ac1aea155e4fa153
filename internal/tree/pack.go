package tree

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// PackOptions say how something is packed.
type PackOptions struct {
	Rules
	// Archive makes a stream that every tar program understands.
	Archive bool
	// LeftOut is called for each socket, pipe and device in a tree.
	LeftOut func(path string)
}

// Pack writes what is at source to w as a tar stream in which it is called
// name; a name of "." stands for the contents of a directory. Modes, times to
// the nanosecond, holes and symbolic links are kept, owners are not. A pipe or
// device that source itself names is read to its end.
//
// Somebody else may change a tree meanwhile, such as a guest that shares it: no
// link in it is followed. What cannot be read in a tree is left out, and the
// error, after all else was packed, tells what it was.
func Pack(ctx context.Context, w io.Writer, source, name string, o PackOptions) error {
	src, err := o.find(source)
	if err != nil {
		return err
	}
	defer src.close()
	p := &packer{ctx: ctx, tar: tar.NewWriter(w), name: name, o: o}
	switch {
	case src.missing():
		return &os.PathError{Op: "open", Path: source, Err: unix.ENOENT}
	case src.isDir():
		err = p.tree(src)
	case src.isStream():
		err = p.stream(src)
	case isRegular(&src.st):
		err = p.file(src.fd, &src.st, name)
	default:
		err = fmt.Errorf("%s is a socket, of which nothing can be copied", Show(source))
	}
	if unread, ok := errors.AsType[*readError](err); ok {
		return &os.PathError{Op: "read", Path: Show(source), Err: unread.err}
	}
	if err != nil {
		return err
	}
	if err := p.tar.Close(); err != nil {
		return err
	}
	return p.unread()
}

// packer is the visitor of the tree that is packed.
type packer struct {
	ctx  context.Context
	tar  *tar.Writer
	name string // of the whole
	o    PackOptions

	errs []error // what could not be read
	more int     // how many of those there are besides
}

func (p *packer) unread() error {
	if p.more > 0 {
		p.errs = append(p.errs, fmt.Errorf("and %d more", p.more))
	}
	if len(p.errs) > 0 {
		return fmt.Errorf("not everything was copied: %w", errors.Join(p.errs...))
	}
	return nil
}

func (p *packer) failed(_ string, err error) error {
	if len(p.errs) < maxErrors {
		p.errs = append(p.errs, err)
	} else {
		p.more++
	}
	return nil
}

func (p *packer) tree(src *found) error {
	fd, err := open(src.fd, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return &os.PathError{Op: "open", Path: src.typed, Err: err}
	}
	c, err := newChain(fd)
	if err != nil {
		return err
	}
	defer c.close()
	if err := p.tar.WriteHeader(header(&src.st, p.name)); err != nil {
		return err
	}
	return walk(p.ctx, c, p)
}

func (p *packer) in(e *entry) string { return path.Join(p.name, e.chain.path(e.name)) }

func (p *packer) enter(e *entry) error { return p.tar.WriteHeader(header(&e.st, p.in(e))) }
func (p *packer) leave(*entry) error   { return nil }

func (p *packer) other(e *entry) error {
	switch e.st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err := p.file(e.fd, &e.st, p.in(e))
		if unread, ok := errors.AsType[*readError](err); ok {
			return p.failed(e.name, e.failed(unread.err))
		}
		return err
	case unix.S_IFLNK:
		target, err := readlink(e.fd)
		if err != nil {
			return p.failed(e.name, e.failed(err))
		}
		h := header(&e.st, p.in(e))
		h.Linkname = target
		return p.tar.WriteHeader(h)
	}
	p.o.LeftOut(Show(p.in(e)))
	return nil
}

// readError is for a file that could not be read, while the stream is still
// good for others.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// file packs a regular file that is pinned.
func (p *packer) file(pinned int, st *unix.Stat_t, name string) error {
	fd, err := open(pinned, unix.O_RDONLY)
	if err != nil {
		return &readError{err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	h := header(st, name)
	if st.Size > chunkSize {
		if p.o.Archive {
			return p.sized(h, f, st.Size)
		}
		return p.extents(h, f, st.Size)
	}
	// The size may be none at all, as of files in /proc.
	return p.content(h, f)
}

// stream packs a device, a pipe, or what this process has open.
func (p *packer) stream(src *found) error {
	f, err := src.stream(p.ctx, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	h := header(&st, p.name)
	h.Typeflag, h.Name = tar.TypeReg, p.name
	if !isRegular(&st) { // of the pipe or device, they say nothing about the file
		h.Mode, h.ModTime = 0o644, time.Now()
	}
	return p.content(h, f)
}

// content packs what can be read from r as one file.
func (p *packer) content(h *tar.Header, r io.Reader) error {
	most := chunkSize
	if p.o.Archive {
		most = archiveMost
	}
	var buf bytes.Buffer
	n, err := io.CopyN(&buf, r, int64(most))
	if errors.Is(err, io.EOF) {
		h.Size = n
		return p.entry(h, buf.Bytes())
	}
	if err != nil {
		return &readError{err}
	}
	if p.o.Archive {
		return &readError{fmt.Errorf("it is of no known size and has more than %d MiB, and an archive begins with the size: copy it to a file first", archiveMost>>20)}
	}
	data, at := buf.Bytes(), int64(0)
	for len(data) > 0 {
		if err := p.chunk(h, at, data); err != nil {
			return err
		}
		at += int64(len(data))
		n, err := io.ReadFull(r, data[:cap(data)])
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		data = data[:n]
	}
	return p.lastChunk(h, at)
}

// extents packs what the file has up to size, without holes.
func (p *packer) extents(h *tar.Header, f *os.File, size int64) error {
	buf := make([]byte, chunkSize)
	first := true
	at := int64(0)
	for at < size {
		if err := p.ctx.Err(); err != nil {
			return context.Cause(p.ctx)
		}
		start, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || err == nil && start >= size { // only a hole is left
			break
		}
		end := start
		if err == nil {
			end, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		}
		n := 0
		if err == nil {
			n, err = f.ReadAt(buf[:min(end-start, size-start, chunkSize)], start)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			if first {
				return &readError{err}
			}
			return fmt.Errorf("reading %s: %w", Show(h.Name), err)
		}
		if n == 0 {
			break // it has become shorter
		}
		if err := p.chunk(h, start, buf[:n]); err != nil {
			return err
		}
		first, at = false, start+int64(n)
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return p.lastChunk(h, max(at, min(info.Size(), size)))
}

func (p *packer) chunk(h *tar.Header, at int64, data []byte) error {
	next := *h
	next.Size = int64(len(data))
	next.PAXRecords = map[string]string{recordOffset: strconv.FormatInt(at, 10), recordMore: "1"}
	return p.entry(&next, data)
}

func (p *packer) lastChunk(h *tar.Header, size int64) error {
	last := *h
	last.PAXRecords = map[string]string{recordSize: strconv.FormatInt(size, 10)}
	return p.entry(&last, nil)
}

func (p *packer) entry(h *tar.Header, data []byte) error {
	if err := p.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err := p.tar.Write(data)
	return err
}

// sized packs a file for programs that must know its size first.
func (p *packer) sized(h *tar.Header, f *os.File, size int64) error {
	h.Size = size
	if err := p.tar.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyN(p.tar, f, size)
	if errors.Is(err, io.EOF) {
		// What was promised has to come.
		_, err = io.CopyN(p.tar, zeroes{}, size-n)
		_ = p.failed("", fmt.Errorf("%s became shorter while it was copied, and ends in zeroes", Show(h.Name)))
	}
	return err
}
