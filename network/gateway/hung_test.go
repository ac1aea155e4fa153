package gateway

import (
	"io"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/confine"
	"github.com/sourcery-zone/sandbox/network"
)

// Who has taken over the process may let it stand still: it must not hold up who changes its rules or publishes a port, nor
// go on by the rules of before.
func TestAProcessThatDoesNotAnswerIsReplaced(t *testing.T) {
	for what, ask := range map[string]func(*Gateway) error{
		"rules": func(g *Gateway) error { return g.SetRules(nil, []string{"1.1.1.1"}) },
		"publish": func(g *Gateway) error {
			_, err := g.Publish(network.Forward{Proto: network.TCP, HostIP: netip.MustParseAddr("127.0.0.1"), GuestPort: 80})
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			processes := make(chan int, 16)
			g, err := Start(t.Context(), Options{
				Mode: network.ModePublic, HostName: "guest", Log: io.Discard, Logger: slog.New(slog.DiscardHandler),
				Started: func(pid int, _ confine.Report) { processes <- pid },
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(g.Close)
			first := <-processes
			if err := unix.Kill(first, unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			if err := unix.Waitid(unix.P_PID, first, nil, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil { // until then, it may answer
				t.Fatal(err)
			}
			g.mu.Lock()
			g.control.Patience = 100 * time.Millisecond
			g.mu.Unlock()
			if err := ask(g); err != nil {
				t.Errorf("it fails, and the next process could do it: %v", err)
			}
			if second := <-processes; second == first {
				t.Error("the process goes on")
			}
			if err := ask(g); err != nil {
				t.Errorf("the next process: %v", err)
			}
		})
	}
}
