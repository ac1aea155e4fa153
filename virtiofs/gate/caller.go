package gate

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// callers are the threads of the file server, of which memory and descriptors can be had.
type callers struct {
	listener *listener
	threads  map[uint32]int // pidfds
	page     [4096]byte
}

// maxThreads bounds what is remembered of threads that are gone. virtiofsd has few.
const maxThreads = 64

// pidfdThread is PIDFD_THREAD, since Linux 6.9.
const pidfdThread = unix.O_EXCL

func (c *callers) close() {
	for _, fd := range c.threads {
		unix.Close(fd)
	}
	c.threads = map[uint32]int{}
}

// thread returns a pidfd of who asks.
func (c *callers) thread(n *notification) (int, error) {
	if fd, ok := c.threads[n.pid]; ok {
		return fd, nil
	}
	fd, err := unix.PidfdOpen(int(n.pid), pidfdThread)
	if errors.Is(err, unix.EINVAL) { // its process will do: all threads have the same descriptors
		var process int
		if process, err = processOf(n.pid); err == nil {
			fd, err = unix.PidfdOpen(process, 0)
		}
	}
	if err != nil {
		return -1, fmt.Errorf("looking at the file server: %w", err)
	}
	if !c.listener.valid(n) {
		unix.Close(fd)
		return -1, unix.ESRCH
	}
	if len(c.threads) == maxThreads {
		c.close()
	}
	c.threads[n.pid] = fd
	return fd, nil
}

// processOf returns the process that a thread is of.
func processOf(tid uint32) (int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if id, ok := strings.CutPrefix(line, "Tgid:"); ok {
			return strconv.Atoi(strings.TrimSpace(id))
		}
	}
	return 0, unix.ESRCH
}

// descriptor returns a copy of one of who asks, to be closed.
func (c *callers) descriptor(n *notification, number uint64) (int, error) {
	for again := false; ; again = true {
		thread, err := c.thread(n)
		if err != nil {
			return -1, err
		}
		fd, err := unix.PidfdGetfd(thread, int(int32(number)), 0)
		if !errors.Is(err, unix.ESRCH) || again {
			return fd, err
		}
		// A thread that is gone, whose number another has now.
		unix.Close(thread)
		delete(c.threads, n.pid)
	}
}

// text reads a string that ends with a NUL from the memory of who asks: no more than a path may have.
func (c *callers) text(n *notification, address uint64) (string, error) {
	var text []byte
	for len(text) < unix.PathMax {
		// Up to the page's end, as the next one may not be there.
		size := len(c.page) - int(address%uint64(len(c.page)))
		local := unix.Iovec{Base: &c.page[0]}
		local.SetLen(size)
		got, err := unix.ProcessVMReadv(int(n.pid), []unix.Iovec{local}, []unix.RemoteIovec{{Base: uintptr(address), Len: size}}, 0)
		if err != nil {
			return "", fmt.Errorf("reading a name: %w", err)
		}
		part, _, found := bytes.Cut(c.page[:got], []byte{0})
		text = append(text, part...)
		if found {
			return string(text), nil
		}
		address += uint64(got)
	}
	return "", unix.ENAMETOOLONG
}
