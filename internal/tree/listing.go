package tree

import (
	"bytes"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// listing reads a directory piece by piece, however many names it has, and goes
// on where it was when the directory was closed and opened again.
type listing struct {
	names []position
	next  int64 // where to go on in the directory when names are used up or forgotten
	seek  bool
}

type position struct {
	name  string
	after int64 // the place in the directory after the name
}

// listingSize is how much of a directory is read in one go.
const listingSize = 32 << 10

// read returns the next name, or "" at the end. The directory is fd.
func (l *listing) read(fd int) (string, error) {
	for len(l.names) == 0 {
		if l.seek {
			if _, err := unix.Seek(fd, l.next, unix.SEEK_SET); err != nil {
				return "", err
			}
			l.seek = false
		}
		buf := make([]byte, listingSize)
		n, err := unix.Getdents(fd, buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOENT): // it was removed, and is empty
			return "", nil
		case err != nil:
			return "", err
		case n == 0:
			return "", nil
		}
		l.names = parse(buf[:n])
	}
	p := l.names[0]
	l.names, l.next = l.names[1:], p.after
	return p.name, nil
}

// forget prepares for the directory to be closed.
func (l *listing) forget() { l.names, l.seek = nil, true }

// parse reads what getdents64(2) wrote.
func parse(buf []byte) []position {
	// struct linux_dirent64: d_ino 8 bytes, d_off 8, d_reclen 2, d_type 1, d_name.
	const header = 19
	var names []position
	for len(buf) > header {
		after, size := binary.NativeEndian.Uint64(buf[8:]), int(binary.NativeEndian.Uint16(buf[16:]))
		if size <= header || size > len(buf) {
			break
		}
		name, _, _ := bytes.Cut(buf[header:size], []byte{0})
		buf = buf[size:]
		if s := string(name); s != "." && s != ".." {
			names = append(names, position{s, int64(after)})
		}
	}
	return names
}
