package machine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
)

// upgradeConsole is the protocol name by which GET /v1/console takes input.
// The connection carries input only, and what the console shows comes by the
// plain GET: so any number can read, and a writer learns that another one took
// over by the end of its connection.
const upgradeConsole = "console-input"

// ErrConsoleTaken is why ConsoleInput fails while somebody else writes.
var ErrConsoleTaken = errors.New("somebody else writes to the console")

// hvc is the host's end of the guest's serial console.
type hvc struct {
	opened chan struct{} // closed when there is a console to read and to write
	once   sync.Once

	mu     sync.Mutex
	guest  io.Writer // nil before the guest starts
	writer net.Conn  // who writes, or nil
}

func newHVC() *hvc { return &hvc{opened: make(chan struct{})} }

func (h *hvc) open(guest io.Writer) {
	h.mu.Lock()
	h.guest = guest
	h.mu.Unlock()
	h.once.Do(func() { close(h.opened) })
}

// acquire makes conn the only writer. Another one is in the way unless take is
// set, which ends that one's connection.
func (h *hvc) acquire(conn net.Conn, take bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.writer != nil {
		if !take {
			return false
		}
		h.writer.Close()
	}
	h.writer = conn
	return true
}

func (h *hvc) release(conn net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.writer == conn {
		h.writer = nil
	}
}

// write passes p on unless conn has lost the console.
func (h *hvc) write(conn net.Conn, p []byte) error {
	h.mu.Lock()
	guest, mine := h.guest, h.writer == conn
	h.mu.Unlock()
	if !mine {
		return net.ErrClosed
	}
	// Outside of the lock: a guest that does not read must not keep others
	// from taking over.
	_, err := guest.Write(p)
	return err
}

// consoleReady waits until the guest has a console, and answers the request
// itself if it never gets one.
func (v *supervisor) consoleReady(w http.ResponseWriter, r *http.Request) bool {
	select {
	case <-v.hvc.opened:
		return true
	case <-v.done:
		http.Error(w, "the sandbox has ended", http.StatusGone)
	case <-r.Context().Done():
	}
	return false
}

// serveConsoleInput takes what is written to the console until the writer
// leaves or loses it to another.
func (v *supervisor) serveConsoleInput(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	if !v.hvc.acquire(conn, r.FormValue("take") == "true") {
		body := ErrConsoleTaken.Error()
		fmt.Fprintf(rw, "HTTP/1.1 409 Conflict\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		_ = rw.Flush() // who has gone needs no answer
		return
	}
	defer v.hvc.release(conn)
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", upgradeConsole)
	if err := rw.Flush(); err != nil {
		return
	}
	buf := make([]byte, 4<<10)
	for {
		n, err := rw.Read(buf)
		if n > 0 {
			if err := v.hvc.write(conn, buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// ConsoleInput makes the caller the writer of the sandbox's console: what is
// written to the connection reaches whoever reads /dev/hvc0 in the guest. A
// read from it returns io.EOF when the sandbox has ended or another took the
// console. While somebody else writes it is ErrConsoleTaken, unless take is
// set: then the other one loses it. The caller closes the connection.
func (s *Sandbox) ConsoleInput(ctx context.Context, take bool) (net.Conn, error) {
	if !s.held() {
		return nil, s.notRunning(s.State())
	}
	conn, err := s.dialAPI(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://sandbox/v1/console?take=%t", take), nil)
	if err != nil {
		conn.Close()
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", upgradeConsole)
	r := bufio.NewReader(conn)
	resp, err := roundTrip(conn, r, req)
	switch {
	case err != nil:
	case resp.StatusCode == http.StatusConflict:
		err = ErrConsoleTaken
	case resp.StatusCode == http.StatusOK:
		err = fmt.Errorf("the supervisor of %s is of an older version and takes no console input: restart the sandbox", s.Name)
	case resp.StatusCode != http.StatusSwitchingProtocols:
		err = answerError(resp)
	}
	if err != nil {
		conn.Close()
		if errors.Is(err, ErrConsoleTaken) {
			return nil, err
		}
		return nil, fmt.Errorf("opening the console of %s: %w", s.Name, err)
	}
	return &bufferedConn{Conn: conn, r: r}, nil
}

func roundTrip(conn net.Conn, r *bufio.Reader, req *http.Request) (*http.Response, error) {
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	return http.ReadResponse(r, req)
}

// wantsConsoleInput tells a writer from a reader.
func wantsConsoleInput(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), upgradeConsole)
}
