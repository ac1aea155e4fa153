package agent

import (
	"context"
	"net"
)

// A Mux opens streams to the agent of one guest. Each stream is an SSH
// connection of its own.
type Mux interface {
	// Open opens a stream; the caller closes it.
	Open(ctx context.Context) (net.Conn, error)
	// Close ends the mux and, where they share a transport, its streams.
	Close() error
}
