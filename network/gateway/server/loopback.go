package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/sourcery-zone/sandbox/network/gateway/internal/wire"
	"github.com/sourcery-zone/sandbox/network/stack"
)

// loopback gets connections to the guest's own loopback from whoever started this process, who has another way into
// the guest than its network.
type loopback struct {
	notices *wire.Notifier

	mu      sync.Mutex
	lastID  int
	waiting map[int]chan<- loopbackConn
}

type loopbackConn struct {
	conn stack.HalfConn
	err  error
}

func newLoopback(notices *wire.Notifier) *loopback {
	return &loopback{notices: notices, waiting: map[int]chan<- loopbackConn{}}
}

func (l *loopback) dial(ctx context.Context, port uint16) (stack.HalfConn, error) {
	came := make(chan loopbackConn, 1)
	l.mu.Lock()
	l.lastID++
	id := l.lastID
	l.waiting[id] = came
	l.mu.Unlock()
	l.notices.Notify(wire.Notice{Loopback: &wire.WantLoopback{ID: id, Port: port}})
	select {
	case c := <-came:
		return c.conn, c.err
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting[id] == nil { // it came in this moment
		c := <-came
		return c.conn, c.err
	}
	delete(l.waiting, id)
	return nil, context.Cause(ctx)
}

// take hands over what has come. It takes over the file.
func (l *loopback) take(r wire.Loopback, f *os.File) error {
	var c loopbackConn
	switch {
	case r.Error != "":
		c.err = errors.New(r.Error)
	case f == nil:
		return errors.New("there is no connection with the message")
	default:
		conn, err := net.FileConn(f) // which duplicates it
		if err != nil {
			return errors.Join(err, f.Close())
		}
		unix, ok := conn.(*net.UnixConn)
		if !ok {
			return errors.Join(fmt.Errorf("the connection is a %T", conn), conn.Close(), f.Close())
		}
		c.conn = unix
	}
	if f != nil {
		f.Close()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	came := l.waiting[r.ID]
	if came == nil { // it was given up
		if c.conn != nil {
			c.conn.Close()
		}
		return nil
	}
	delete(l.waiting, r.ID)
	came <- c
	return nil
}
