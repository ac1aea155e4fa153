package proxy

import (
	"io"
	"net"
	"net/http"
	"sync"
)

// outbox is the guest's side of a connection. TLS writes each of its records by itself, and each piece that is written costs
// the network's stack and the guest about as much as one that is four times as large. So while large answers are carried, a
// goroutine sends what is written, in pieces as large as they get meanwhile. Otherwise, what is written is sent when the write
// ends.
type outbox struct {
	net.Conn

	mu      sync.Mutex
	changed sync.Cond
	large   int    // so many answers are carried
	pending []byte // is to be sent
	sent    []byte // is being sent, if sending; otherwise it is room for the next piece
	sending bool
	err     error // why nothing is sent any more
}

const (
	maxPending  = 64 << 10 // bytes, beside as many that are being sent
	largeAnswer = 64 << 10 // bytes
)

func newOutbox(c net.Conn) *outbox {
	o := &outbox{Conn: c}
	o.changed.L = &o.mu
	return o
}

func (o *outbox) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.err == nil && (o.large == 0 && o.sending || len(o.pending) > 0 && len(o.pending)+len(b) > maxPending) {
		o.changed.Wait()
	}
	switch {
	case o.err != nil:
		return 0, o.err
	case o.large == 0:
		return o.Conn.Write(b)
	}
	o.pending = append(o.pending, b...)
	if !o.sending {
		o.sending = true
		go o.send()
	}
	return len(b), nil
}

// send sends until nothing is pending.
func (o *outbox) send() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.pending) > 0 && o.err == nil {
		o.pending, o.sent = o.sent[:0], o.pending
		o.changed.Broadcast()
		o.mu.Unlock()
		_, err := o.Conn.Write(o.sent)
		o.mu.Lock()
		o.err = err
	}
	o.sending = false
	o.changed.Broadcast()
}

// begin says that a large answer is carried.
func (o *outbox) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.large++
}

// end says that it has been written. If no other one is carried, it waits until all is sent.
func (o *outbox) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.large--
	for o.large == 0 && o.sending {
		o.changed.Wait()
	}
	if o.large == 0 {
		o.pending, o.sent = nil, nil
	}
}

// body is that of an answer, which its outbox is told of if it is large.
type body struct {
	io.ReadCloser
	out  *outbox
	left int // bytes, after which it is large
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left > 0 {
		if b.left -= n; b.left <= 0 {
			b.out.begin()
		}
	}
	return n, err
}

func (b *body) Close() error {
	if b.left <= 0 {
		b.left = 1
		b.out.end()
	}
	return b.ReadCloser.Close()
}

// carried has the session's outbox told of a response's body.
func (s *session) carried(r *http.Response, err error) (*http.Response, error) {
	if err == nil && r.StatusCode != http.StatusSwitchingProtocols {
		r.Body = &body{ReadCloser: r.Body, out: s.out, left: largeAnswer}
	}
	return r, err
}
