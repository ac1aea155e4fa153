package stack

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/policy"
	"golang.org/x/net/dns/dnsmessage"
)

// hostService is a service of this machine's loopback, which says who it is.
func hostService(t *testing.T, address, word string) (port int, visits chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	visits = make(chan struct{}, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			visits <- struct{}{}
			_, _ = io.WriteString(c, word)
			c.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port, visits
}

func TestOnePortOfTheHostIsOpenAndNothingElse(t *testing.T) {
	four, _ := hostService(t, "127.0.0.1:0", "four")
	six, _ := hostService(t, "[::1]:0", "six")
	closed, visits := hostService(t, "127.0.0.1:0", "closed")
	gone, err := network.FreePort(network.TCP, netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	ports := func(c *Config) {
		c.HostPorts = []network.HostPort{{Port: four}, {Port: six, Name: "host.docker.internal"}, {Port: gone}}
	}
	for mode, options := range map[string][]option{
		"public":    {ports, resolver(zone{})},
		"allowlist": {allow(t, "api.example.com", "0.0.0.0/0:*"), ports, resolver(zone{})},
	} {
		t.Run(mode, func(t *testing.T) {
			l := newLab(t, options...)
			for _, name := range []string{network.HostName, "HOST.sandbox.internal", "host.docker.internal"} {
				if a := l.address(name); a != Gateway {
					t.Errorf("%s is %s", name, a)
				}
			}
			if got := texts(l.ask(network.HostName, dnsmessage.TypeAAAA, 1232)); len(got) > 0 {
				t.Errorf("the host has the addresses %v", got)
			}
			for _, name := range []string{"sandbox.internal", "other.sandbox.internal", "x.host.sandbox.internal"} {
				if m := l.ask(name, dnsmessage.TypeA, 1232); m.RCode != dnsmessage.RCodeNameError {
					t.Errorf("%s is answered with %s, %v", name, m.RCode, texts(m))
				}
			}
			_, page := l.get("GET", "http://"+network.PolicyName+"/", "")
			for _, want := range []string{fmt.Sprintf("\n    host.sandbox.internal:%d\n", four), fmt.Sprintf("\n    host.docker.internal:%d\n", six)} {
				if !strings.Contains(page, want) {
					t.Errorf("%q is not in\n%s", want, page)
				}
			}
			at := func(port int) netip.AddrPort { return netip.AddrPortFrom(Gateway, uint16(port)) }
			for port, want := range map[int]string{four: "four", six: "six"} {
				c := l.mustConnect(at(port))
				if got, err := io.ReadAll(c); err != nil || string(got) != want {
					t.Errorf("the host's port %d says %q, %v", port, got, err)
				}
				c.Close() // which is when it is logged
				e := l.event(func(e Event) bool { return e.Proto == "tcp" && e.Addr == at(port) })
				if !e.Allowed || e.Rule != RuleHostPort {
					t.Errorf("the connection is logged as %+v", e)
				}
			}
			for _, port := range []int{gone, closed} {
				if _, err := l.connect(at(port)); err == nil || !strings.Contains(err.Error(), "refused") {
					t.Errorf("the host's port %d: %v", port, err)
				}
			}
			// Not by any other way.
			for _, to := range []string{"10.0.2.3", "127.0.0.1", "93.0.0.1", "0.0.0.0"} {
				if c, err := l.connect(netip.AddrPortFrom(netip.MustParseAddr(to), uint16(four))); err == nil {
					c.Close()
					t.Errorf("the host is open at %s", to)
				}
			}
			if v := l.network.config; v.opensHost(at(four), policy.UDP) || v.opensHost(at(four), policy.ICMP) {
				t.Error("the port is open by other protocols")
			}
			if _, dialed := l.seen(); len(dialed) > 0 {
				t.Errorf("the host dialled %v", dialed)
			}
			for port, want := range map[int]policy.Verdict{four: {Allow: true, Rule: RuleHostPort}, closed: {Rule: RuleGateway}} {
				for _, host := range []string{"10.0.2.2", network.HostName, "Host.Docker.Internal."} {
					got, err := Check(context.Background(), l.network.config, host, uint16(port), policy.TCP)
					if err != nil || got != (Answer{Verdict: want, Addr: Gateway}) {
						t.Errorf("%s:%d: %+v, %v", host, port, got, err)
					}
				}
			}
		})
	}
	if len(visits) > 0 {
		t.Error("a port was reached that is not open")
	}
}

func TestWithoutPortsTheHostHasNoName(t *testing.T) {
	l := newLab(t, resolver(zone{}))
	if m := l.ask(network.HostName, dnsmessage.TypeA, 1232); m.RCode != dnsmessage.RCodeNameError {
		t.Errorf("%s is answered with %s, %v", network.HostName, m.RCode, texts(m))
	}
}
