package stack

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/policy"
	"golang.org/x/sys/unix"
)

// HostAddresses returns the addresses that the host has now, for a policy.Policy.
func HostAddresses() ([]netip.Addr, error) {
	found, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	addrs := make([]netip.Addr, 0, len(found))
	for _, a := range found {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, prefix.Addr())
	}
	return addrs, nil
}

// HostServers returns the DNS servers of the host.
func HostServers() ([]netip.AddrPort, error) {
	r, err := network.ReadResolver()
	if err != nil {
		return nil, err
	}
	var servers []netip.AddrPort
	for _, text := range r.Servers {
		if a, err := netip.ParseAddr(text); err == nil {
			servers = append(servers, netip.AddrPortFrom(a, 53))
		}
	}
	return servers, nil
}

// dialTimeout is how long a guest waits for a host that does not answer, in place of its own two minutes.
const dialTimeout = 30 * time.Second

// ClosedError is why a connection was not dialled.
type ClosedError struct {
	Addr netip.AddrPort
	Rule string
}

func (e *ClosedError) Error() string {
	return fmt.Sprintf("%s is closed to the guest: %s", e.Addr, e.Rule)
}

// DialPolicy returns a function that dials what judge opens. It asks judge about the address that the system is about to
// connect to, which nothing can change any more.
func DialPolicy(judge func(netip.AddrPort, policy.Proto) policy.Verdict) func(ctx context.Context, network policy.Proto, address netip.AddrPort) (net.Conn, error) {
	return func(ctx context.Context, proto policy.Proto, address netip.AddrPort) (net.Conn, error) {
		if proto == policy.ICMP {
			if v := judge(address, proto); !v.Allow {
				return nil, &ClosedError{address, v.Rule}
			}
			return dialPing(address.Addr())
		}
		d := net.Dialer{
			Timeout: dialTimeout,
			Control: func(_, dialed string, c syscall.RawConn) error {
				a, err := netip.ParseAddrPort(dialed)
				if err != nil {
					return err
				}
				if v := judge(a, proto); !v.Allow {
					return &ClosedError{a, v.Rule}
				}
				if proto != policy.UDP {
					return nil
				}
				// Package net lets each socket send to all of a network, such as one beside the host's
				// with public addresses.
				cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 0) })
				if err == nil {
					err = cerr
				}
				return err
			},
		}
		return d.DialContext(ctx, string(proto), address.String())
	}
}
