package tree

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Used is what the directory and all in it occupy on the disk, in bytes; files
// with several names count once. What cannot be read, or vanishes meanwhile,
// does not count.
func Used(dir string) (int64, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, nil // as with all that cannot be read
	}
	c, err := newChain(fd)
	if err != nil {
		return 0, err
	}
	defer c.close()
	m := &measurer{linked: map[ID]bool{}}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	m.add(&st)
	err = walk(context.Background(), c, m)
	return m.total, err
}

// Size is what a tree is made of.
type Size struct {
	// Bytes is what it occupies on the disk. Files with several names count once, and each file and directory counts
	// MinSize at least: what has no content takes of the file system, too.
	Bytes int64
	// Devices are those of the file systems that it is on.
	Devices map[uint64]bool
	// Unread says what could not be read, and why, or is empty. Then there is more.
	Unread string
}

// MinSize is what an empty file counts in a Size.
const MinSize = 4096

// Measure measures the open directory and all in it, whatever is done to it meanwhile. No link is followed.
func Measure(dir *os.File) (Size, error) {
	fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Size{}, fmt.Errorf("measuring %s: %w", dir.Name(), err)
	}
	c, err := newChain(fd)
	if err != nil {
		return Size{}, err
	}
	defer c.close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Size{}, err
	}
	m := &measurer{linked: map[ID]bool{}, least: MinSize, devices: map[uint64]bool{st.Dev: true}}
	err = walk(context.Background(), c, m)
	return Size{m.total, m.devices, m.unread}, err
}

type measurer struct {
	total  int64
	linked map[ID]bool
	least  int64  // that each file counts
	unread string // the first that could not be

	devices map[uint64]bool // nil: nobody asks
}

func (m *measurer) add(st *unix.Stat_t) {
	if m.devices != nil {
		m.devices[st.Dev] = true
	}
	if !isDir(st) && st.Nlink > 1 {
		if m.linked[idOf(st)] {
			return
		}
		m.linked[idOf(st)] = true
	}
	const block = 512 // the unit of st_blocks, whatever the file system's is: inode(7)
	m.total += max(st.Blocks*block, m.least)
}

func (m *measurer) enter(e *entry) error { m.add(&e.st); return nil }
func (m *measurer) leave(*entry) error   { return nil }
func (m *measurer) other(e *entry) error { m.add(&e.st); return nil }

func (m *measurer) failed(_ string, err error) error {
	if m.unread == "" && !errors.Is(err, unix.ENOENT) {
		m.unread = err.Error()
	}
	return nil
}
