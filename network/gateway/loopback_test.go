package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/internal/socketpair"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/gateway/internal/wire"
	"github.com/sourcery-zone/sandbox/network/stack"
	"golang.org/x/sys/unix"
)

// answered is what came of a notice.
type answered struct {
	wire.Loopback
	file *os.File
}

// askingProcess is a gateway that publishes TCP port 3000 and UDP port 53 of the guest, with the test as its process.
func askingProcess(t *testing.T, dial func(context.Context, uint16) (stack.HalfConn, error)) (g *Gateway, ask func(port uint16) answered) {
	t.Helper()
	control, f, err := wire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	process, err := wire.NewConn(f)
	if err != nil {
		t.Fatal(err)
	}
	g = &Gateway{options: Options{Loopback: dial, Logger: slog.New(slog.DiscardHandler)}, published: []published{
		{Forward: network.Forward{GuestPort: 3000, Proto: network.TCP}}, {Forward: network.Forward{GuestPort: 53, Proto: network.UDP}},
	}}
	g.ctx, g.end = context.WithCancel(t.Context())
	answers := make(chan answered, maxLoopback)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			r, f, err := process.Next()
			if err != nil {
				return
			}
			_ = process.Reply(nil)
			answers <- answered{*r.Loopback, f}
		}
	}()
	t.Cleanup(func() {
		g.end()
		control.Close()
		process.Close()
		<-done
	})
	id := 0
	return g, func(port uint16) answered {
		t.Helper()
		id++
		g.connectLoopback(wire.WantLoopback{ID: id, Port: port}, control)
		a := <-answers
		if a.ID != id {
			t.Errorf("the answer is to %d and not to %d", a.ID, id)
		}
		if a.file != nil {
			t.Cleanup(func() { a.file.Close() })
		}
		return a
	}
}

// echo is a service of the guest's that sends back what it gets.
func echo(context.Context, uint16) (stack.HalfConn, error) {
	near, far, err := socketpair.New(unix.SOCK_STREAM, "loopback")
	if err != nil {
		return nil, err
	}
	c, err := net.FileConn(far)
	if err != nil {
		return nil, err
	}
	far.Close()
	go func() {
		_, _ = io.Copy(c, c)
		c.Close()
	}()
	return near, nil
}

func TestConnectionsToTheGuestsLoopback(t *testing.T) {
	_, ask := askingProcess(t, func(ctx context.Context, port uint16) (stack.HalfConn, error) {
		if port != 3000 {
			t.Errorf("port %d of the guest was dialled", port)
		}
		return echo(ctx, port)
	})
	a := ask(3000)
	if a.Error != "" || a.file == nil {
		t.Fatalf("the answer is %+v", a)
	}
	c, err := net.FileConn(a.file)
	if err != nil {
		t.Fatal(err)
	}
	a.file.Close()
	defer c.Close()
	_, _ = io.WriteString(c, "hello")
	_ = c.(*net.UnixConn).CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
	// A process that the guest has taken over gets no port that is not published.
	for _, port := range []uint16{22, 53, 3001, 0} {
		if a := ask(port); a.file != nil || !strings.Contains(a.Error, "not published") {
			t.Errorf("port %d: %+v", port, a)
		}
	}
}

func TestConnectionsToTheGuestsLoopbackAreBounded(t *testing.T) {
	g, ask := askingProcess(t, echo)
	for i := range maxLoopback {
		if a := ask(3000); a.file == nil {
			t.Fatalf("connection %d: %s", i, a.Error)
		}
	}
	if a := ask(3000); a.file != nil || !strings.Contains(a.Error, "already") {
		t.Errorf("one more: %+v", a)
	}
	g.end() // which ends them all
}

func TestLoopbackWithoutAnybodyIsRefused(t *testing.T) {
	_, ask := askingProcess(t, func(context.Context, uint16) (stack.HalfConn, error) { return nil, errors.New("nobody listens") })
	if a := ask(3000); a.file != nil || a.Error != "nobody listens" {
		t.Errorf("the answer is %+v", a)
	}
	_, ask = askingProcess(t, nil)
	if a := ask(3000); a.file != nil || a.Error == "" {
		t.Errorf("without another way the answer is %+v", a)
	}
}
