//go:build linux

package guest

import (
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
)

func TestSerialPortServesTheNextHostAfterOneLeft(t *testing.T) {
	ports := make(chan serialStream)
	open := func(ctx context.Context) (serialStream, error) {
		select {
		case port := <-ports:
			return port, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	echo := func(conn net.Conn) {
		_, _ = io.Copy(conn, conn)
		conn.Close()
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- serveSerial(ctx, open, echo, slog.New(slog.DiscardHandler)) }()

	for range 2 {
		host, port := unixPair(t)
		ports <- port
		talk(t, host).Close()
	}

	// The guest does not notice that these replace one another, not even when
	// one is cut off in the middle of what it sends.
	host, port := unixPair(t)
	ports <- port
	for _, lastWords := range []string{"", "\x00\x00\x00\x01\x00\x00\x00\x01\x00\x01\x00\x00cut", strings.Repeat("\xff", 64)} {
		talk(t, unclosed{host}).Close()
		if err := host.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(host, lastWords); err != nil {
			t.Fatal(err)
		}
	}
	mux := talk(t, unclosed{host})

	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if _, err := mux.Open(t.Context()); err == nil {
		t.Error("a stream was opened after the end")
	}
}

// unclosed is a connection that outlives who uses it.
type unclosed struct{ net.Conn }

func (c unclosed) Close() error { return c.SetDeadline(time.Unix(1, 0)) }

// talk sends a word through the port and back.
func talk(t *testing.T, host net.Conn) agent.Mux {
	t.Helper()
	mux, err := agent.NewSerialMux(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := mux.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(stream, "hello"); err != nil {
		t.Fatal(err)
	}
	var answer [5]byte
	if _, err := io.ReadFull(stream, answer[:]); err != nil || string(answer[:]) != "hello" {
		t.Fatalf("%q, %v", answer, err)
	}
	return mux
}

func unixPair(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ours, err := net.Dial("unix", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}
