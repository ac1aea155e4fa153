package wire

import (
	"encoding/json"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/network/stack"
)

// Notice is what the process tells by itself, over a socket of its own: one of these. Nothing comes back.
type Notice struct {
	Question *stack.Question `json:"question,omitempty"` // that was asked, or has ended
	Loopback *WantLoopback   `json:"loopback,omitempty"`
	Lost     int             `json:"lost,omitempty"` // how many notices before this one were lost
}

// WantLoopback asks for a connection to a port of the guest's own loopback, which comes as a request.
type WantLoopback struct {
	ID   int    `json:"id"` // not 0, and no other's of this process
	Port uint16 `json:"port"`
}

// Notifier sends notices, for several goroutines at once.
type Notifier struct {
	conn Conn

	mu   sync.Mutex
	lost int // since the last that was sent
}

// NewNotifier returns one that sends over the connection.
func NewNotifier(c Conn) *Notifier { return &Notifier{conn: c} }

// Notify sends a notice, or counts it as lost. A guest can cause many, so it never waits: those that nobody has read yet
// are in the socket's buffer, whose size the kernel bounds.
func (n *Notifier) Notify(notice Notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	notice.Lost = n.lost
	data, err := json.Marshal(notice)
	if err == nil {
		err = n.conn.sendNow(data)
	}
	if err != nil {
		n.lost++
		return
	}
	n.lost = 0
}

// sendNow fails if the message cannot be sent without waiting.
func (c Conn) sendNow(data []byte) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		for {
			if _, sent = unix.SendmsgN(int(fd), data, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); sent != unix.EINTR {
				return true
			}
		}
	})
	if err != nil {
		return err
	}
	return sent
}

// NextNotice waits for a notice.
func (c Conn) NextNotice() (n Notice, err error) {
	buf := make([]byte, maxMessage)
	k, err := c.Read(buf)
	if err != nil {
		return n, err
	}
	return n, json.Unmarshal(buf[:k], &n)
}
