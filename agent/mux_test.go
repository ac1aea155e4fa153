package agent

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/hashicorp/yamux"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

var errReason = errors.New("the test has seen enough")

// servePort answers a call on a port and hands the streams to handle.
func servePort(port net.Conn, handle func(net.Conn)) {
	word := ""
	for finder, found := new(wire.CallFinder), false; !found; {
		var piece [16]byte
		n, err := port.Read(piece[:])
		if err != nil {
			return
		}
		word, _, found = finder.Find(piece[:n])
	}
	_, _ = io.WriteString(port, "\x00left over"+wire.Hello("")+wire.Hello(word))
	session, err := yamux.Server(port, wire.MuxConfig())
	if err != nil {
		return
	}
	for {
		stream, err := session.Accept()
		if err != nil {
			return
		}
		go handle(stream)
	}
}

func TestClosedStreamIsNotWaitedForWhenTheGuestHangs(t *testing.T) {
	ours, port := net.Pipe()
	defer port.Close()
	go servePort(port, func(net.Conn) {})
	mux, err := NewSerialMux(t.Context(), ours)
	if err != nil {
		t.Fatal(err)
	}
	defer mux.Close()
	stream, err := mux.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan error)
	go func() {
		_, err := stream.Read(make([]byte, 1))
		read <- err
	}()
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
	if err := <-read; err == nil {
		t.Error("something was read from a guest that hangs")
	}
}

func TestSerialMuxCarriesStreams(t *testing.T) {
	ours, port := net.Pipe()
	defer port.Close()
	go servePort(port, func(stream net.Conn) {
		_, _ = io.Copy(stream, stream)
		stream.Close()
	})
	mux, err := NewSerialMux(t.Context(), ours)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		stream, err := mux.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(stream, "word"); err != nil {
			t.Fatal(err)
		}
		var back [4]byte
		if _, err := io.ReadFull(stream, back[:]); err != nil || string(back[:]) != "word" {
			t.Errorf("%q, %v", back, err)
		}
	}
	if err := mux.Close(); err != nil {
		t.Error(err)
	}
	if _, err := mux.Open(t.Context()); err == nil {
		t.Error("a closed mux opened a stream")
	}
}

func TestSerialMuxWaitsNoLongerThanItsContext(t *testing.T) {
	ours, port := net.Pipe()
	defer port.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errReason)
	if _, err := NewSerialMux(ctx, ours); !errors.Is(err, errReason) {
		t.Errorf("got %v, want %v", err, errReason)
	}
	if _, err := port.Write([]byte("x")); err == nil {
		t.Error("the connection is still open")
	}
}

func TestVsockMuxTriesUntilTheGuestListens(t *testing.T) {
	refusals := []error{syscall.ENODEV, syscall.ECONNRESET, syscall.ECONNREFUSED}
	mux := &vsockMux{dial: func(context.Context) (net.Conn, error) {
		if len(refusals) > 0 {
			err := refusals[0]
			refusals = refusals[1:]
			return nil, &net.OpError{Op: "dial", Err: err}
		}
		conn, _ := net.Pipe()
		return conn, nil
	}}
	conn, err := mux.Open(t.Context())
	if err != nil || len(refusals) != 0 {
		t.Fatalf("%v; %d refusals are left", err, len(refusals))
	}
	conn.Close()
}

func TestVsockMuxGivesUp(t *testing.T) {
	fails := func(err error) *vsockMux {
		return &vsockMux{dial: func(context.Context) (net.Conn, error) { return nil, err }}
	}
	if _, err := fails(syscall.EACCES).Open(t.Context()); !errors.Is(err, syscall.EACCES) {
		t.Errorf("a hopeless error: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errReason)
	_, err := fails(syscall.ECONNRESET).Open(ctx)
	if !errors.Is(err, errReason) || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want both reasons", err)
	}
}

func contextWithReason(t *testing.T) (context.Context, func()) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	return ctx, func() { cancel(errReason) }
}
