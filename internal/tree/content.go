package tree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// sink is what the content of a file is written to.
type sink interface {
	io.Writer
	// skipTo leaves a hole up to the offset.
	skipTo(offset int64) error
	// end gives the file its size.
	end(size int64) error
}

// errOrder is for chunks that a stream of ours never has so.
var errOrder = errors.New("the other side sent the parts of a file in a wrong order")

// content writes a file, in however many chunks it comes.
func (u *unpacker) content(h *tar.Header, to sink) error {
	if u.archive {
		return u.withHoles(to)
	}
	name := h.Name
	for {
		offset, err := number(h, recordOffset)
		if err == nil && offset >= 0 {
			err = to.skipTo(offset)
		}
		if err == nil {
			_, err = io.Copy(to, u.tar)
		}
		if err != nil {
			return err
		}
		if h.PAXRecords[recordMore] == "" {
			break
		}
		h, err = u.next()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		if h.Name != name || !isFile(h) {
			return errOrder
		}
	}
	size, err := number(h, recordSize)
	if err != nil || size < 0 {
		return err
	}
	return to.end(size)
}

// number returns a number of an entry, or -1 if it has none.
func number(h *tar.Header, record string) (int64, error) {
	text := h.PAXRecords[record]
	if text == "" {
		return -1, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return -1, fmt.Errorf("the other side sent %s for %s", Show(text), record)
	}
	return n, nil
}

// withHoles writes a file of an archive, whose reader fills holes with zeroes.
func (u *unpacker) withHoles(to sink) error {
	const block = 4 << 10 // the smallest that takes room in most file systems
	buf := make([]byte, block)
	for at := int64(0); ; {
		n, err := io.ReadFull(u.tar, buf)
		if n > 0 && !isZero(buf[:n]) {
			if err := to.skipTo(at); err != nil {
				return err
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return err
			}
		}
		at += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) && n > 0 {
			return to.end(at)
		}
		if err != nil {
			return err
		}
	}
}

// zeroWriter writes chunks one after the other, with zeroes for holes.
type zeroWriter struct {
	w  io.Writer
	at int64
}

func (z *zeroWriter) Write(p []byte) (int, error) {
	n, err := z.w.Write(p)
	z.at += int64(n)
	return n, err
}

// skipTo writes zeroes up to the offset.
func (z *zeroWriter) skipTo(offset int64) error {
	if offset < z.at {
		return errOrder
	}
	_, err := io.CopyN(z, zeroes{}, offset-z.at)
	return err
}

// end is skipTo for the end of the file.
func (z *zeroWriter) end(size int64) error { return z.skipTo(size) }

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// holeWriter writes chunks to a new file and leaves holes between them.
type holeWriter struct {
	f interface {
		io.WriteSeeker
		Truncate(size int64) error
	}
	at int64
}

func (h *holeWriter) Write(p []byte) (int, error) {
	n, err := h.f.Write(p)
	h.at += int64(n)
	return n, err
}

func (h *holeWriter) skipTo(offset int64) error {
	if offset < h.at {
		return errOrder
	}
	h.at = offset
	_, err := h.f.Seek(offset, io.SeekStart)
	return err
}

func (h *holeWriter) end(size int64) error {
	if size < h.at {
		return errOrder
	}
	return h.f.Truncate(size)
}

func isZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
