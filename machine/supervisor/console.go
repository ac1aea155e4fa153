package supervisor

import (
	"context"
	"io"
	"net"
	"sync"

	"github.com/sourcery-zone/sandbox/machine/api"
)

// consoleInput is the host's end of the guest's serial console, hvc0.
type consoleInput struct {
	opened chan struct{} // closed when there is a console to read and to write
	once   sync.Once

	mu     sync.Mutex
	guest  io.Writer      // nil before the guest starts
	writer *consoleWriter // who writes, or nil
}

func newConsoleInput() *consoleInput { return &consoleInput{opened: make(chan struct{})} }

func (h *consoleInput) open(guest io.Writer) {
	h.mu.Lock()
	h.guest = guest
	h.mu.Unlock()
	h.once.Do(func() { close(h.opened) })
}

// consoleWriter is one who may write to the console.
type consoleWriter struct {
	mu   sync.Mutex
	conn net.Conn // nil before its stream has begun
	lost bool     // to another one
}

// lose ends the writer's stream, now or when it begins.
func (w *consoleWriter) lose() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost = true
	if w.conn != nil {
		w.conn.Close()
	}
}

// begin tells whether the writer has not lost the console while its stream began.
func (w *consoleWriter) begin(conn net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conn = conn
	return !w.lost
}

// acquire makes w the only writer. Another one is in the way unless take is set, which
// ends that one's stream.
func (h *consoleInput) acquire(w *consoleWriter, take bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.writer != nil {
		if !take {
			return false
		}
		h.writer.lose()
	}
	h.writer = w
	return true
}

func (h *consoleInput) release(w *consoleWriter) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.writer == w {
		h.writer = nil
	}
}

// copy passes on what comes from the writer until that leaves or loses the console.
func (h *consoleInput) copy(w *consoleWriter, conn net.Conn) error {
	if !w.begin(conn) {
		return nil
	}
	buf := make([]byte, 4<<10)
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			if err := h.write(w, buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return nil // it has left, or has lost the console
		}
	}
}

// write passes p on unless w has lost the console.
func (h *consoleInput) write(w *consoleWriter, p []byte) error {
	h.mu.Lock()
	guest, mine := h.guest, h.writer == w
	h.mu.Unlock()
	if !mine {
		return net.ErrClosed
	}
	// Outside of the lock: a guest that does not read must not keep others
	// from taking over.
	_, err := guest.Write(p)
	return err
}

// awaitConsole waits until the guest has a console, or never gets one.
func (v *supervisor) awaitConsole(ctx context.Context) error {
	select {
	case <-v.input.opened:
		return nil
	case <-v.done:
		return api.Errorf(api.CodeNotRunning, "the sandbox has ended")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
