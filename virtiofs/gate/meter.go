package gate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/tree"
	"github.com/sourcery-zone/sandbox/virtiofs/rules"
)

// Meter keeps what a directory holds below a limit. What a call may add to it is charged before it happens, and nothing is
// credited: when the charges reach the limit, the directory is measured anew, so that whatever was removed, by whomever,
// counts then. What was removed and is still open in the guest counts as if it were there.
type Meter struct {
	dir   *os.File
	limit int64

	mu       sync.Mutex
	used     int64 // measured, and charged since
	measured time.Time
	pause    time.Duration // from then until it may be measured again
}

// RuleQuota is the Rule of events that tell of a Meter's limit.
const RuleQuota = "quota"

// measurePart is how much of the time is for measuring at most: one part of so many. A guest that fills a directory with a
// million files has its own requests wait, and not a processor of the host work.
const measurePart = 20

// NewMeter measures the directory, which it has open from then on. What cannot be read is an error, as it could hold
// anything.
func NewMeter(dir *os.File, limit int64) (*Meter, error) {
	fd, err := unix.FcntlInt(dir.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	m := &Meter{dir: os.NewFile(uintptr(fd), dir.Name()), limit: limit}
	size, err := m.measure(func(map[uint64]bool) (int64, error) { return 0, nil })
	if err == nil && size.Unread != "" {
		err = fmt.Errorf("what %s holds cannot be measured (%s): give yourself the right to read all directories in it (chmod -R u+rwX)", dir.Name(), size.Unread)
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	m.used = size.Bytes
	return m, nil
}

// Close gives the directory back.
func (m *Meter) Close() { m.dir.Close() }

// Usage returns what the directory holds by what is known, and what it may hold, in bytes.
func (m *Meter) Usage() (used, limit int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used, m.limit
}

func (m *Meter) measure(removed func(devices map[uint64]bool) (int64, error)) (tree.Size, error) {
	begun := time.Now()
	size, err := tree.Measure(m.dir)
	if err == nil {
		var more int64
		more, err = removed(size.Devices)
		size.Bytes += more
	}
	m.measured = time.Now()
	m.pause = measurePart * m.measured.Sub(begun)
	return size, err
}

// charge adds n bytes, unless the directory is full. Removed tells how many bytes it holds, on its devices, for which
// there is no name any more.
func (m *Meter) charge(n int64, removed func(devices map[uint64]bool) (int64, error)) bool {
	if n <= 0 {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if n > m.limit-m.used && time.Since(m.measured) >= m.pause {
		// Where the guest has made a directory that we cannot read, what was charged stays.
		if size, err := m.measure(removed); err == nil && size.Unread == "" {
			m.used = size.Bytes
		}
	}
	if n > m.limit-m.used {
		return false
	}
	m.used += n
	return true
}

// metered are the calls by which virtiofsd gives files more content. A file that is made longer by ftruncate(2) gets a
// hole, which is charged when it is filled.
var metered = []int{unix.SYS_PWRITE64, unix.SYS_PWRITEV, unix.SYS_PWRITEV2, unix.SYS_FALLOCATE, unix.SYS_COPY_FILE_RANGE}

// meterers find out how much they may add.
var meterers = map[int]func(*Gate, *notification) error{
	unix.SYS_PWRITE64:        (*Gate).pwrite64,
	unix.SYS_PWRITEV:         (*Gate).pwritev,
	unix.SYS_PWRITEV2:        (*Gate).pwritev,
	unix.SYS_FALLOCATE:       (*Gate).fallocate,
	unix.SYS_COPY_FILE_RANGE: (*Gate).copyFileRange,
}

// full tells of what the quota is against.
func (g *Gate) full(ev Event, path string) error {
	g.tellRefused(ev, path, rules.Verdict{Rule: RuleQuota, Reason: "the share is as large as its quota allows"})
	return unix.EDQUOT
}

// charge charges the meter for the call that is being answered.
func (g *Gate) charge(bytes int64) bool {
	return g.quota.charge(bytes, func(devices map[uint64]bool) (int64, error) { return removedBytes(g.asking, devices) })
}

// removedBytes is what the files on the devices occupy that have no name any more, and that the file server still has for
// its guest. It has a descriptor of each file that the guest knows.
func removedBytes(thread uint32, devices map[uint64]bool) (total int64, err error) {
	at := fmt.Sprintf("/proc/%d/fd", thread) // all threads have the same
	list, err := os.Open(at)
	if err != nil {
		return 0, err
	}
	defer list.Close()
	type file struct{ device, inode uint64 }
	counted := map[file]bool{}
	for {
		names, err := list.Readdirnames(1024)
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return 0, err
		}
		for _, name := range names {
			path := filepath.Join(at, name)
			var st unix.Stat_t
			if to, err := os.Readlink(path); err != nil || !strings.HasSuffix(to, deleted) {
				continue
			}
			if err := unix.Stat(path, &st); err != nil || st.Nlink != 0 || !devices[st.Dev] || counted[file{st.Dev, st.Ino}] {
				continue
			}
			counted[file{st.Dev, st.Ino}] = true
			total += max(st.Blocks*blockSize, tree.MinSize)
		}
	}
}

// blockSize is that of st_blocks, see inode(7).
const blockSize = 512

// write charges what of the bytes from the offset on may be new in the file that is the call's argument.
func (g *Gate) write(n *notification, file int, offset, length int64) error {
	number, err := descriptor(n.args[file])
	if err != nil {
		return err
	}
	st, err := g.callers.stat(n, number, "")
	if err != nil {
		return err
	}
	if offset < 0 || length < 0 {
		return unix.EINVAL
	}
	flags, err := g.callers.flags(n, number)
	if err != nil {
		return err
	}
	if flags&unix.O_APPEND != 0 {
		offset = st.Size
	}
	if g.charge(growth(&st, offset, length)) {
		return nil
	}
	p, err := g.open(n, n.args[file])
	if err != nil {
		return err
	}
	return g.full(Event{Verb: Write, Path: p.path}, p.path)
}

// growth is by how much a file grows at most when it gets that many bytes at the offset: what lies after its end, and as
// much of the rest as it has holes.
func growth(st *unix.Stat_t, offset, length int64) int64 {
	within := min(max(st.Size-offset, 0), length)
	holes := max(st.Size-st.Blocks*blockSize, 0)
	grown := min(within, holes) + length - within
	if grown == 0 {
		return 0
	}
	return roundUp(grown)
}

// roundUp is a size in whole blocks of most file systems.
func roundUp(n int64) int64 {
	const unit = tree.MinSize
	if n > 1<<62 {
		return n
	}
	return (n + unit - 1) / unit * unit
}

func (g *Gate) pwrite64(n *notification) error {
	return g.write(n, 0, int64(n.args[3]), int64(n.args[2]))
}

// pwritev has the offset in one argument on 64-bit machines.
func (g *Gate) pwritev(n *notification) error {
	length, err := g.callers.vectors(n, n.args[1], n.args[2])
	if err != nil {
		return err
	}
	return g.write(n, 0, int64(n.args[3]), length)
}

func (g *Gate) fallocate(n *notification) error {
	mode := uint32(n.args[1])
	switch {
	case mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_COLLAPSE_RANGE) != 0:
		return nil
	case mode&unix.FALLOC_FL_KEEP_SIZE != 0:
		// What a file has after its end would look like what its holes have been filled with.
		return unix.EOPNOTSUPP
	}
	return g.write(n, 0, int64(n.args[2]), int64(n.args[3]))
}

func (g *Gate) copyFileRange(n *notification) error {
	source, err := descriptor(n.args[0])
	if err != nil {
		return err
	}
	st, err := g.callers.stat(n, source, "")
	if err != nil {
		return err
	}
	offset, err := g.callers.number(n, n.args[3])
	if err != nil {
		return err
	}
	return g.write(n, 2, offset, min(int64(min(n.args[4], 1<<62)), st.Size))
}

// maxVectors is UIO_MAXIOV.
const maxVectors = 1024

// vectors returns how many bytes an array of struct iovec is for.
func (c *callers) vectors(n *notification, address, count uint64) (total int64, err error) {
	if count > maxVectors {
		return 0, unix.EINVAL
	}
	vectors := make([]struct{ base, size uint64 }, count)
	if count == 0 {
		return 0, nil
	}
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(&vectors[0])), count*uint64(unsafe.Sizeof(vectors[0])))
	if err := c.memory(n, address, bytes); err != nil {
		return 0, err
	}
	for _, v := range vectors {
		if v.size > 1<<40 {
			return 0, unix.EINVAL
		}
		total += int64(v.size)
	}
	return total, nil
}

// number reads one of 64 bits. That there is none means the file's own offset, which virtiofsd does not use.
func (c *callers) number(n *notification, address uint64) (int64, error) {
	if address == 0 {
		return 0, unix.EINVAL
	}
	var b [8]byte
	if err := c.memory(n, address, b[:]); err != nil {
		return 0, err
	}
	return int64(binary.NativeEndian.Uint64(b[:])), nil
}

// memory fills b from the memory of who asks.
func (c *callers) memory(n *notification, address uint64, b []byte) error {
	local := unix.Iovec{Base: &b[0]}
	local.SetLen(len(b))
	got, err := unix.ProcessVMReadv(int(n.pid), []unix.Iovec{local}, []unix.RemoteIovec{{Base: uintptr(address), Len: len(b)}}, 0)
	if err != nil {
		return fmt.Errorf("reading arguments: %w", err)
	}
	if got != len(b) {
		return unix.EFAULT
	}
	return nil
}
