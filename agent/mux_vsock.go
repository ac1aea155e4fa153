package agent

import (
	"context"
	"fmt"
	"net"
	"time"
)

// vsockRetry is the pause between two attempts to reach a guest that does not
// listen yet. Nothing tells the host when it does.
const vsockRetry = 20 * time.Millisecond

// NewVsockMux opens streams to a vsock port of the guest with the context
// identifier cid. Nothing is dialled before the first Open, and Open tries
// until the guest listens or its context ends. Closing the mux leaves its
// streams open: they share nothing.
func NewVsockMux(cid, port uint32) Mux {
	return &vsockMux{dial: func(ctx context.Context) (net.Conn, error) {
		return dialVsock(ctx, cid, port)
	}}
}

type vsockMux struct {
	dial func(ctx context.Context) (net.Conn, error)
}

func (m *vsockMux) Open(ctx context.Context) (net.Conn, error) {
	for {
		conn, err := m.dial(ctx)
		if err == nil {
			return conn, nil
		}
		if !retryVsock(err) {
			return nil, fmt.Errorf("cannot reach the guest over vsock: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the guest does not answer over vsock (%w): %w", err, context.Cause(ctx))
		case <-time.After(vsockRetry):
		}
	}
}

func (m *vsockMux) Close() error { return nil }
