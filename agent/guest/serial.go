//go:build linux

package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

// serialStream is an open serial port. Its deadlines interrupt a Read and a
// Write that are under way.
type serialStream interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
}

// serveSerial answers hosts on the port, one after the other, and hands each
// stream that they open to handle, until ctx ends. When a host lets go of the
// port, the port is opened afresh.
func serveSerial(ctx context.Context, open func(context.Context) (serialStream, error), handle func(net.Conn), logger *slog.Logger) error {
	for {
		port, err := open(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		err = servePort(ctx, port, handle, logger)
		if ctx.Err() != nil {
			return nil
		}
		logger.Info("the host has let go of the serial port", "err", err)
	}
}

// servePort answers hosts on an open port until it ends, and closes it.
func servePort(ctx context.Context, port serialStream, handle func(net.Conn), logger *slog.Logger) error {
	defer port.Close()
	stop := context.AfterFunc(ctx, func() { port.Close() })
	defer stop()
	if _, err := io.WriteString(port, wire.Hello("")); err != nil {
		return fmt.Errorf("cannot greet the host: %w", err)
	}
	p := &callPort{port: port}
	for {
		call, err := p.awaitCall()
		if err != nil {
			return err
		}
		if _, err := io.WriteString(port, wire.Hello(call.word)); err != nil {
			return fmt.Errorf("cannot answer the host's call: %w", err)
		}
		if err := serveCall(&callConn{callPort: p, unread: call.rest}, handle); err != nil {
			return err
		}
		logger.Info("a host's conversation on the serial port has ended")
	}
}

// serveCall serves one host after its call. It returns nil if there may be
// another call on the same port.
func serveCall(conn *callConn, handle func(net.Conn)) error {
	session, err := yamux.Server(wire.WholeFrames(conn), wire.MuxConfig())
	if err != nil {
		return err
	}
	for {
		stream, err := session.AcceptStream()
		if err != nil {
			break
		}
		go handle(stream)
	}
	// When Close has returned, the session leaves the port alone.
	session.Close()
	if err := conn.port.SetDeadline(time.Time{}); err != nil {
		return err
	}
	return conn.failure()
}

// call is a host's call together with what the host has sent behind it.
type call struct {
	word string
	rest []byte
}

// callPort is a port on which a host may call at any time.
type callPort struct {
	port   serialStream
	finder wire.CallFinder // used by one reader at a time

	mu   sync.Mutex
	next *call // the one that has ended a conversation, until it is answered
	err  error // why the port cannot be read any more
}

// awaitCall returns the next call.
func (p *callPort) awaitCall() (call, error) {
	p.mu.Lock()
	next := p.next
	p.next = nil
	p.mu.Unlock()
	if next != nil {
		return *next, nil
	}
	buffer := make([]byte, 4096)
	for {
		n, err := p.port.Read(buffer)
		if word, rest, found := p.finder.Find(buffer[:n]); found {
			return call{word, rest}, nil
		}
		if err != nil {
			return call{}, err
		}
	}
}

// failure returns why the port cannot be read any more, or nil.
func (p *callPort) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// callConn is the port during one conversation, which a call ends as a closed
// connection would.
type callConn struct {
	*callPort
	unread []byte // what came behind the call
}

func (c *callConn) Read(buffer []byte) (int, error) {
	if len(c.unread) > 0 {
		n := copy(buffer, c.unread)
		c.unread = c.unread[n:]
		return n, nil
	}
	n, err := c.port.Read(buffer)
	word, rest, found := c.finder.Find(buffer[:n])
	c.mu.Lock()
	defer c.mu.Unlock()
	if found {
		c.next = &call{word, rest}
		return 0, io.EOF
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.err = err
	}
	return n, err
}

func (c *callConn) Write(data []byte) (int, error) { return c.port.Write(data) }

// Close interrupts what is under way and leaves the port open for the next
// conversation.
func (c *callConn) Close() error { return c.port.SetDeadline(time.Unix(1, 0)) }
