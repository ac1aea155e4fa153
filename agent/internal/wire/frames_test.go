package wire

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/hashicorp/yamux"
)

// countingConn counts the writes to a connection.
type countingConn struct {
	net.Conn
	mu     sync.Mutex
	writes int
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writes++
	c.mu.Unlock()
	return c.Conn.Write(p)
}

func TestSmallFrameIsOneWrite(t *testing.T) {
	near, far := net.Pipe()
	counted := &countingConn{Conn: near}
	client, err := yamux.Client(WholeFrames(counted), MuxConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := yamux.Server(WholeFrames(far), MuxConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	// Several sizes, on both sides of what is joined and of yamux's buffers.
	messages := [][]byte{[]byte("x"), bytes.Repeat([]byte("small"), 100), bytes.Repeat([]byte("large"), 100_000), []byte("y")}
	got := make(chan []byte, 1)
	go func() {
		stream, err := server.AcceptStream()
		if err != nil {
			t.Error(err)
			close(got)
			return
		}
		data, err := io.ReadAll(stream)
		if err != nil {
			t.Error(err)
		}
		got <- data
	}()
	stream, err := client.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	counted.mu.Lock()
	before := counted.writes
	counted.mu.Unlock()
	for i, message := range messages {
		if _, err := stream.Write(message); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			counted.mu.Lock()
			if wrote := counted.writes - before; wrote != 1 {
				t.Errorf("one byte on a stream took %d writes", wrote)
			}
			counted.mu.Unlock()
		}
	}
	if err := stream.Close(); err != nil {
		t.Fatal(err)
	}
	if want := bytes.Join(messages, nil); !bytes.Equal(<-got, want) {
		t.Error("what arrived is not what was sent")
	}
}
