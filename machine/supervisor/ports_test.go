package supervisor

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/network"
)

// announcing returns a sandbox in which commands can run, on a network of our own, whose
// guest says on which ports it listens.
func announcing(t *testing.T, auto bool) *life {
	t.Helper()
	l := newLife(t, func(c *machine.Config) { c.Network, c.AutoPublish, c.AllowWeak = network.ModePublic, auto, true })
	l.guest.agent.Guest.Listening = make(chan []agent.Port)
	l.begin()
	l.await(machine.StageAgent)
	return l
}

// ports waits until the state's ports are as wanted.
func (l *life) ports(want func([]machine.GuestPort) bool) []machine.GuestPort {
	l.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		ports := l.s.State().Ports
		if want(ports) {
			return ports
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("the guest listens on %+v", ports)
		}
	}
}

func numbers(ports []machine.GuestPort) string {
	var words []string
	for _, p := range ports {
		word := fmt.Sprint(p.Number)
		if p.Published.IsValid() {
			word += "*"
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func TestPortsOfTheGuestAreShownAndPublishedAutomatically(t *testing.T) {
	l := announcing(t, true)
	// The same number, where it is free.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	busy := taken.Addr().(*net.TCPAddr).Port
	free, err := network.FreePort(network.TCP, netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	say := func(ports ...agent.Port) { l.guest.agent.Guest.Listening <- ports }
	say(agent.Port{Number: 22}, agent.Port{Number: 80}, agent.Port{Number: uint16(busy), Program: "node"}, agent.Port{Number: uint16(free), Loopback: true})
	ports := l.ports(func(p []machine.GuestPort) bool { return len(p) == 3 })
	for _, p := range ports {
		at := int(p.Published.Port())
		if same := at == int(p.Number); !p.Published.Addr().IsLoopback() || at < firstUserPort || same != (int(p.Number) == free) {
			t.Errorf("the guest's port %d is published at %s", p.Number, p.Published)
		}
		c, err := net.Dial("tcp", p.Published.String())
		if err != nil {
			t.Errorf("the guest's port %d: %v", p.Number, err)
			continue
		}
		c.Close()
	}
	// A port that is asked for takes the place.
	asked := network.Forward{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: free, GuestPort: free, Proto: network.TCP}
	if _, err := l.calls.Publish(t.Context(), api.Ports{Forwards: []network.Forward{asked}}); err != nil {
		t.Error(err)
	}
	if !slices.ContainsFunc(l.s.State().Ports, func(p machine.GuestPort) bool { return int(p.Number) == free && !p.Published.IsValid() }) {
		t.Errorf("what was asked for is published twice: %s", numbers(l.s.State().Ports))
	}
	if err := l.calls.Unpublish(t.Context(), api.Ports{Forwards: []network.Forward{asked}}); err != nil {
		t.Error(err)
	}
	l.ports(func(p []machine.GuestPort) bool { return strings.Count(numbers(p), "*") == 3 })
	// It ends with the program that listens, and when it is not wanted any more.
	say(agent.Port{Number: uint16(busy)})
	l.ports(func(p []machine.GuestPort) bool { return len(p) == 1 && p[0].Published.IsValid() })
	if c, err := net.Dial("tcp", ports[0].Published.String()); err == nil {
		c.Close()
		t.Error("a port is open whose program has ended")
	}
	if err := l.calls.AutoPublish(t.Context(), api.AutoPorts{On: false}); err != nil {
		t.Error(err)
	}
	if c, err := l.s.Config(); err != nil || c.AutoPublish || strings.Contains(numbers(l.s.State().Ports), "*") {
		t.Errorf("it is published still: %s, %v", numbers(l.s.State().Ports), err)
	}
	if err := l.calls.Stop(t.Context(), api.StopRequest{}); err != nil {
		t.Fatal(err)
	}
	l.expect(machine.StatusStopped, "it was stopped")
	if left := l.s.State().Ports; len(left) > 0 {
		t.Errorf("a guest that has ended listens on %s", numbers(left))
	}
}

func TestHostileGuestsPortsAreBounded(t *testing.T) {
	l := announcing(t, true)
	many := make([]agent.Port, 10_000)
	for i := range many {
		many[i] = agent.Port{Number: uint16(10_000 + i), Program: "\x1b[2J" + strings.Repeat("x", 40)}
	}
	l.guest.agent.Guest.Listening <- many
	ports := l.ports(func(p []machine.GuestPort) bool { return len(p) > 0 })
	published := strings.Count(numbers(ports), "*")
	if len(ports) != agent.MaxPorts || published != maxAutoPorts {
		t.Errorf("%d ports are shown, and %d are published", len(ports), published)
	}
	for _, p := range ports {
		if strings.ContainsRune(p.Program, '\x1b') || p.Published.IsValid() && !p.Published.Addr().IsLoopback() {
			t.Errorf("a port is %+v", p)
		}
	}
	// One that opens and closes them in a loop has to wait.
	began := time.Now()
	for i := range portsBurst + 2 {
		l.guest.agent.Guest.Listening <- many[:i%2]
	}
	if took := time.Since(began); took < portsPause/2 {
		t.Errorf("%d changes were taken within %v", portsBurst+2, took)
	}
}

func TestPortsArePublishedFromTheMomentThatItIsAskedFor(t *testing.T) {
	l := announcing(t, false)
	l.guest.agent.Guest.Listening <- []agent.Port{{Number: 80}}
	l.ports(func(p []machine.GuestPort) bool { return numbers(p) == "80" })
	if err := l.calls.AutoPublish(t.Context(), api.AutoPorts{On: true}); err != nil {
		t.Error(err)
	}
	l.ports(func(p []machine.GuestPort) bool { return numbers(p) == "80*" })
}
