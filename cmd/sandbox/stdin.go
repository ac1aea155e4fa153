package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/agent"
)

// commandInput is the input for a command in a guest. The command is not here
// to read for itself, and what is read for it without its asking is lost to
// those who share the input, such as the loop of "while read" that runs the
// command. So a file goes back to where the command has read to, and of a pipe
// nothing is taken before the command reads.
func commandInput(f *os.File) io.Reader {
	info, err := f.Stat()
	if err != nil {
		return f
	}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return &fileInput{f: f}
	case mode&fs.ModeNamedPipe != 0:
		return newPeekedInput(f, teePeek)
	case mode&fs.ModeSocket != 0:
		return newPeekedInput(f, socketPeek)
	}
	return f
}

// returnInput gives back what the command has not read.
func returnInput(in io.Reader) {
	if taker, ok := in.(interface{ giveBack() }); ok {
		taker.giveBack()
	}
}

// fileInput is a file, of which any part can be given back.
type fileInput struct {
	f *os.File

	mu    sync.Mutex
	sent  int64
	taken int64
	done  bool
}

// Read implements io.Reader.
func (i *fileInput) Read(p []byte) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.done {
		return 0, io.EOF
	}
	n, err := i.f.Read(p)
	i.sent += int64(n)
	return n, err
}

// Taken implements agent.Taker.
func (i *fileInput) Taken(bytes int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.taken = min(bytes, i.sent)
}

func (i *fileInput) giveBack() {
	i.mu.Lock()
	defer i.mu.Unlock()
	// It fails for a file that cannot seek, which has nothing to give back.
	_, _ = i.f.Seek(i.taken-i.sent, io.SeekCurrent)
	i.sent, i.done = i.taken, true
}

// peekedInput is an input that cannot go back, but can be looked at. What it
// shows first stays in it until the command has read that; from then on the
// command is one that reads its input, and gets it as fast as it can.
type peekedInput struct {
	f    *os.File
	peek func(f *os.File, p []byte) (int, error)

	asked chan struct{} // closed when the command has read that, or has ended
	once  sync.Once

	mu      sync.Mutex
	peeked  int   // bytes that were shown
	taken   int64 // bytes that the command has read
	dropped bool  // what it has read of those shown is not in the input any more
	done    bool
}

func newPeekedInput(f *os.File, peek func(*os.File, []byte) (int, error)) *peekedInput {
	return &peekedInput{f: f, peek: peek, asked: make(chan struct{})}
}

// Read implements io.Reader.
func (i *peekedInput) Read(p []byte) (int, error) {
	select {
	case <-i.asked:
	default:
		if i.shown() == 0 {
			return i.show(p)
		}
		if i.ended() {
			return 0, io.EOF
		}
		<-i.asked
	}
	if err := i.drop(); err != nil {
		return 0, err
	}
	return i.f.Read(p)
}

func (i *peekedInput) shown() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.peeked
}

// show waits for input and returns some of it, which it leaves there.
func (i *peekedInput) show(p []byte) (int, error) {
	for {
		if _, err := readable(i.f, -1); err != nil {
			return 0, err
		}
		n, err := i.peek(i.f, p[:min(len(p), agent.FirstInput)])
		switch {
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
			continue // another reader was faster
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		}
		i.mu.Lock()
		defer i.mu.Unlock()
		i.peeked = n
		return n, nil
	}
}

// ended reports whether nothing can follow what was shown, so that the command
// need not wait for the end.
func (i *peekedInput) ended() bool {
	ready := []unix.PollFd{{Fd: int32(i.f.Fd())}}
	n, err := unix.Poll(ready, 0)
	if err != nil || n == 0 || ready[0].Revents&unix.POLLHUP == 0 {
		return false
	}
	left, err := unix.IoctlGetInt(int(i.f.Fd()), unix.TIOCINQ)
	return err == nil && left == i.shown()
}

// Taken implements agent.Taker.
func (i *peekedInput) Taken(bytes int64) {
	i.mu.Lock()
	i.taken = bytes
	all := bytes >= int64(i.peeked) && bytes > 0
	i.mu.Unlock()
	if all {
		i.once.Do(func() { close(i.asked) })
	}
}

// drop takes out of the input what the command has read of what was shown.
// After the command's end, the error is io.EOF.
func (i *peekedInput) drop() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.done {
		return io.EOF
	}
	for n := min(i.taken, int64(i.peeked)); !i.dropped && n > 0; {
		// It waits for nobody: another reader may have been faster.
		if ready, err := readable(i.f, 0); !ready || err != nil {
			return err
		}
		m, err := i.f.Read(make([]byte, n))
		if err != nil {
			return err
		}
		n -= int64(m)
	}
	i.dropped = true
	return nil
}

// giveBack leaves in the input what the command has not read of what was shown.
func (i *peekedInput) giveBack() {
	_ = i.drop()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.done = true
	i.once.Do(func() { close(i.asked) }) // for a Read that waits
}

// readable waits, without end if milliseconds is -1, until f can be read.
func readable(f *os.File, milliseconds int) (bool, error) {
	ready := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(ready, milliseconds)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return false, os.NewSyscallError("poll", err)
	}
	return n > 0, nil
}

// teePeek copies from a pipe what it holds, and leaves it there.
func teePeek(f *os.File, p []byte) (int, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	defer w.Close()
	n, err := unix.Tee(int(f.Fd()), int(w.Fd()), len(p), unix.SPLICE_F_NONBLOCK)
	if err != nil || n == 0 {
		return 0, err
	}
	return io.ReadFull(r, p[:n])
}

// socketPeek does so with a socket.
func socketPeek(f *os.File, p []byte) (int, error) {
	n, _, err := unix.Recvfrom(int(f.Fd()), p, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return n, err
}
