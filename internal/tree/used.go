package tree

import (
	"context"

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

type measurer struct {
	total  int64
	linked map[ID]bool
}

func (m *measurer) add(st *unix.Stat_t) {
	if !isDir(st) && st.Nlink > 1 {
		if m.linked[idOf(st)] {
			return
		}
		m.linked[idOf(st)] = true
	}
	const block = 512 // the unit of st_blocks, whatever the file system's is: inode(7)
	m.total += st.Blocks * block
}

func (m *measurer) enter(e *entry) error       { m.add(&e.st); return nil }
func (m *measurer) leave(*entry) error         { return nil }
func (m *measurer) other(e *entry) error       { m.add(&e.st); return nil }
func (m *measurer) failed(string, error) error { return nil }
