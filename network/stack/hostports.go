package stack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/policy"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// RuleHostPort is the rule of a connection to a port of the host's that is open to the guest.
const RuleHostPort = "host-port"

// opensHost tells whether an address is that of a service of the host's loopback that is open to the guest: the router's,
// with such a port.
func (c *Config) opensHost(a netip.AddrPort, proto policy.Proto) bool {
	return proto == policy.TCP && a.Addr() == Gateway &&
		slices.ContainsFunc(c.HostPorts, func(p network.HostPort) bool { return p.Port == int(a.Port()) })
}

// namesHost tells whether a name stands for the host. Where nothing of it is open, it has none.
func (c *Config) namesHost(name string) bool {
	return len(c.HostPorts) > 0 && name == network.HostName ||
		slices.ContainsFunc(c.HostPorts, func(p network.HostPort) bool { return p.Name != "" && p.Name == name })
}

// checkHost tells what becomes of a connection to the host, if it is one.
func (c *Config) checkHost(host string, port uint16, proto policy.Proto) (a Answer, ok bool) {
	addr, err := netip.ParseAddr(host)
	if err != nil && c.namesHost(strings.ToLower(strings.TrimSuffix(host, "."))) {
		addr = Gateway
	}
	if addr.Unmap() != Gateway {
		return Answer{}, false
	}
	a = Answer{Verdict: policy.Verdict{Rule: RuleGateway}, Addr: Gateway}
	if c.opensHost(netip.AddrPortFrom(Gateway, port), proto) {
		a.Verdict = policy.Verdict{Allow: true, Rule: RuleHostPort}
	}
	return a, true
}

// answerHost answers a question about a name of the host's.
func (n *Network) answerHost(q question, e *Event) reply {
	e.Rule = RuleHostPort
	a := q.fail(dnsmessage.RCodeSuccess)
	if q.Type == dnsmessage.TypeA {
		n.names.add(Gateway, q.host())
		a.addresses, a.ttl = []netip.Addr{Gateway}, nameTTL
	}
	return a
}

// dialHost connects to a port of the host's loopback, of either family: many a service listens on one only.
func dialHost(ctx context.Context, port uint16) (net.Conn, error) {
	c, err := loopbackDialer.DialContext(ctx, "tcp4", netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port).String())
	if errors.Is(err, syscall.ECONNREFUSED) {
		if c, err := loopbackDialer.DialContext(ctx, "tcp6", netip.AddrPortFrom(netip.IPv6Loopback(), port).String()); err == nil {
			return c, nil
		}
	}
	return c, err
}

// loopbackDialer needs no probes: the kernel itself tells the one end what has become of the other.
var loopbackDialer = net.Dialer{Control: connect, KeepAlive: -1}

// connect begins a connection, before package net does so. Within a machine, it is there when connect(2) returns, but the
// call says so only when it is repeated, as package net does now. Otherwise it would wait to be told, and the guest with it,
// behind all else that there is to do. An error is also for package net to find.
func connect(_, address string, c syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	var to unix.Sockaddr = &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	if a.Addr().Is4() {
		to = &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return c.Control(func(fd uintptr) { _ = unix.Connect(int(fd), to) })
}
