package agent

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

// NewSerialMux calls the guest on conn, the host's end of its virtio-serial
// port, and waits for the answer. The guest may still be booting, or be in the
// middle of a conversation with an earlier host, which then ends. The mux
// takes ownership of conn, also when it fails.
func NewSerialMux(ctx context.Context, conn net.Conn) (Mux, error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	reader := bufio.NewReader(conn)
	call, word := wire.NewCall()
	// The guest may have to say something before it listens.
	called := make(chan error, 1)
	go func() {
		_, err := io.WriteString(conn, call)
		called <- err
	}()
	err := wire.AwaitHello(reader, word)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("no greeting from the guest's agent: %w", err)
	}
	if err := <-called; err != nil {
		conn.Close()
		return nil, fmt.Errorf("cannot call the guest's agent: %w", err)
	}
	session, err := yamux.Client(wire.WholeFrames(&guestFrames{ReadWriteCloser: greetedConn{conn, reader}}), wire.MuxConfig())
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("cannot divide the guest's serial port into streams: %w", err)
	}
	return &serialMux{session}, nil
}

// greetedConn reads through the buffer that found the greeting, because the
// buffer may hold what came after it.
type greetedConn struct {
	net.Conn
	reader *bufio.Reader
}

func (c greetedConn) Read(p []byte) (int, error) { return c.reader.Read(p) }

type serialMux struct{ session *yamux.Session }

// serialStream is a stream whose Close ends what is read from it and written to
// it at once. yamux's own waits for the guest, which may never close its end.
type serialStream struct{ *yamux.Stream }

func (s serialStream) Close() error {
	_ = s.SetDeadline(time.Unix(1, 0)) // long ago; it never fails
	go s.Stream.Close()
	return nil
}

func (m *serialMux) Open(ctx context.Context) (net.Conn, error) {
	type opened struct {
		stream *yamux.Stream
		err    error
	}
	result := make(chan opened, 1)
	go func() {
		stream, err := m.session.OpenStream()
		result <- opened{stream, err}
	}()
	select {
	case o := <-result:
		if o.err != nil {
			return nil, fmt.Errorf("cannot open a stream on the guest's serial port: %w", o.err)
		}
		return serialStream{o.stream}, nil
	case <-ctx.Done():
		go func() {
			if o := <-result; o.err == nil {
				o.stream.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

func (m *serialMux) Close() error { return m.session.Close() }
