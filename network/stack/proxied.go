package stack

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/sourcery-zone/sandbox/network/proxy"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// tooManyError is why a connection that the host could make was not made.
type tooManyError struct{}

func (tooManyError) Error() string { return "the guest has too many such connections already" }

// admitProxied keeps a place for a connection that only the proxy may have.
func (n *Network) admitProxied(requests bool) (finished func(), err error) {
	if !requests {
		return func() {}, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.proxy.Load() == nil || n.proxied >= proxy.MaxConnections {
		return func() {}, tooManyError{}
	}
	n.proxied++
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.proxied--
	}, nil
}

// serveProxied has the proxy serve a connection. The caller ends the guest's.
func (n *Network) serveProxied(h *held, ep tcpip.Endpoint, queue *waiter.Queue, host net.Conn, e *Event) {
	guest := &guestConn{pieceConn: newPieceConn(queue, ep)}
	name, addr := e.Name, e.Addr
	n.proxy.Load().Serve(h.ctx, proxy.Conn{
		Guest: guest, Host: host, Name: name, Port: addr.Port(),
		Dial:   func(ctx context.Context) (net.Conn, error) { return n.dial(ctx, h) },
		Judge:  func(r policy.Request) policy.Verdict { return n.rules.Load().with(h.once).request(r) },
		Remedy: n.config.Remedy,
		Refused: func(rule, request string) {
			if request == "" {
				e.Allowed, e.Rule = false, rule
				return
			}
			n.event(Event{Proto: "http", Name: name, Addr: addr, Rule: rule, Request: request}, time.Now())
		},
	})
	if closed := h.closed(); closed != nil {
		e.Allowed, e.Rule = false, closed.Rule
	}
	e.Sent, e.Received = guest.sent.Load(), guest.received.Load()
}

// guestConn is the guest's side of a connection, which counts.
type guestConn struct {
	pieceConn
	sent, received atomic.Int64
}

func (c *guestConn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	c.sent.Add(int64(n))
	return n, err
}

func (c *guestConn) Write(b []byte) (int, error) {
	n, err := c.pieceConn.Write(b)
	c.received.Add(int64(n))
	return n, err
}

// Close ends the connection, and leaves the guest time to take what it was sent.
func (c *guestConn) Close() error {
	_ = c.SetDeadline(time.Unix(1, 0)) // for those who wait
	_ = c.CloseRead()
	return c.CloseWrite()
}
