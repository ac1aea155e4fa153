package main

import (
	"net/netip"
	"testing"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/machine"
)

func TestPublishedPortsInOneLine(t *testing.T) {
	at := func(number uint16, program string, published bool) machine.GuestPort {
		p := machine.GuestPort{Port: agent.Port{Number: number, Program: program}}
		if published {
			p.Published = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), number)
		}
		return p
	}
	for want, ports := range map[string][]machine.GuestPort{
		"": {at(1, "x", false)},
		"node at 127.0.0.1:5173, port 80 at 127.0.0.1:80": {at(5173, "node", true), at(1, "x", false), at(80, "", true)},
		"a at 127.0.0.1:1, a at 127.0.0.1:2, a at 127.0.0.1:3, a at 127.0.0.1:4, a at 127.0.0.1:5, and more, which sandbox port shows": {
			at(1, "a", true), at(2, "a", true), at(3, "a", true), at(4, "a", true), at(5, "a", true), at(6, "a", true), at(7, "a", true),
		},
	} {
		if got := publishedInWords(machine.State{Ports: ports}); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
