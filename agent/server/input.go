//go:build linux

package server

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
	"golang.org/x/crypto/ssh"
)

// pipeSize is the kernel's usual one.
const pipeSize = 64 << 10

// meteredInput is the pipe to a process's standard input. It knows how much of
// what was written to it the process has read.
type meteredInput struct {
	pipe    *os.File
	watched *os.File          // another writing end, on which the watch can wait
	kept    *os.File          // a reading end, which keeps what nobody has read
	read    func(bytes int64) // called once, when the first write has been read

	mu      sync.Mutex // held by a write
	written int64
}

// newMeteredInput makes the pipe so small that the kernel says when the first
// write has been read: it is writable again then.
func newMeteredInput(pipe *os.File, read func(int64)) (*meteredInput, error) {
	m := &meteredInput{pipe: pipe, read: read}
	err := control(pipe, func(fd int) (err error) {
		path := fmt.Sprintf("/proc/self/fd/%d", fd)
		if m.kept, err = os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0); err != nil {
			return err
		}
		m.watched, err = os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
		return err
	})
	if err == nil {
		err = resizePipe(pipe, wire.FirstInput)
	}
	if err != nil {
		_, _ = m.kept.Close(), m.watched.Close() // a nil file is none to close
		return nil, err
	}
	return m, nil
}

func resizePipe(pipe *os.File, bytes int) error {
	return control(pipe, func(fd int) error {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, bytes)
		return err
	})
}

// Write implements io.Writer.
func (m *meteredInput) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.pipe.Write(p)
	if m.written == 0 && n > 0 {
		go m.watch(int64(n))
	}
	m.written += int64(n)
	return n, err
}

// watch waits until the first write has been read or the input ends.
func (m *meteredInput) watch(first int64) {
	raw, err := m.watched.SyscallConn()
	if err != nil {
		return
	}
	empty := func(fd uintptr) bool {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, _ := unix.Poll(ready, 0)
		return n > 0
	}
	if raw.Write(empty) == nil {
		_ = resizePipe(m.watched, pipeSize) // without, it only goes slower
		m.read(first)
	}
}

// Close ends the input. A write that is under way has written some of it.
func (m *meteredInput) Close() error { return errors.Join(m.pipe.Close(), m.watched.Close()) }

// taken is how much of the input the process has read at its end. It is called
// once, after Close.
func (m *meteredInput) taken() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.kept.Close()
	left := 0
	_ = control(m.kept, func(fd int) (err error) {
		left, err = unix.IoctlGetInt(fd, unix.TIOCINQ)
		return err
	})
	return m.written - int64(left)
}

// input is where the process's input goes, and its meter if the other side has
// asked for one. What a terminal's driver has taken has been read.
func (s *session) input(p *process) (io.WriteCloser, *meteredInput) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.reports {
		return p.stdin, nil
	}
	if p.stdin != p.stdout {
		if metered, err := newMeteredInput(p.stdin, s.reportInput); err == nil {
			return metered, metered
		}
	}
	s.reportInput(math.MaxInt64)
	return p.stdin, nil
}

// reportInput tells the other side how much of the input has been read.
func (s *session) reportInput(bytes int64) {
	// It fails only when nobody is there to know.
	_, _ = s.channel.SendRequest(wire.RequestInputRead, false, ssh.Marshal(wire.InputRead{Bytes: uint64(bytes)}))
}
