//go:build linux

package agenttest

import (
	"context"
	"io"
	"net"
	"testing"

	"github.com/hashicorp/yamux"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

// ServePort answers the one host that calls on the guest's end of a serial port,
// which it takes over, until the test or the port ends.
func (s *Server) ServePort(t testing.TB, port net.Conn) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.servePort(ctx, port)
	}()
	t.Cleanup(func() {
		cancel()
		port.Close()
		<-done
	})
}

func (s *Server) servePort(ctx context.Context, port net.Conn) {
	var finder wire.CallFinder
	word := ""
	for found := false; !found; {
		var piece [1]byte // so that nothing of what follows is taken
		n, err := port.Read(piece[:])
		if err != nil {
			return
		}
		word, _, found = finder.Find(piece[:n])
	}
	if _, err := io.WriteString(port, wire.Hello(word)); err != nil {
		return
	}
	session, err := yamux.Server(wire.WholeFrames(port), wire.MuxConfig())
	if err != nil {
		return
	}
	defer session.Close()
	for {
		stream, err := session.AcceptStream()
		if err != nil {
			return
		}
		go s.Config.ServeConn(ctx, stream)
	}
}
