package stack

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
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

// IsLocal tells whether the host takes for itself what it would send to an address, for a policy.Policy. Its routes say so, as
// for the addresses of a cloud's load balancer or of a range that one host serves, which none of its interfaces has.
func IsLocal(a netip.Addr) (bool, error) {
	family, to := byte(unix.AF_INET6), a.AsSlice()
	if a.Is4() {
		family = unix.AF_INET
	}
	const attribute = unix.SizeofRtAttr
	ask := make([]byte, unix.SizeofNlMsghdr+unix.SizeofRtMsg+attribute, unix.SizeofNlMsghdr+unix.SizeofRtMsg+attribute+net.IPv6len)
	ask = append(ask, to...)
	order := binary.NativeEndian
	order.PutUint32(ask, uint32(len(ask)))
	order.PutUint16(ask[4:], unix.RTM_GETROUTE)
	order.PutUint16(ask[6:], unix.NLM_F_REQUEST)
	ask[unix.SizeofNlMsghdr] = family
	ask[unix.SizeofNlMsghdr+1] = byte(8 * len(to))
	order.PutUint16(ask[unix.SizeofNlMsghdr+unix.SizeofRtMsg:], uint16(attribute+len(to)))
	order.PutUint16(ask[unix.SizeofNlMsghdr+unix.SizeofRtMsg+2:], unix.RTA_DST)

	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return false, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, ask, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false, os.NewSyscallError("sendto", err)
	}
	answer := make([]byte, os.Getpagesize())
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return false, os.NewSyscallError("recvfrom", err)
	}
	messages, err := syscall.ParseNetlinkMessage(answer[:n])
	if err != nil || len(messages) == 0 {
		return false, fmt.Errorf("the answer about a route cannot be read: %w", cmp.Or(err, error(unix.EBADMSG)))
	}
	switch m := messages[0]; {
	case m.Header.Type == unix.NLMSG_ERROR:
		return false, nil // there is no route, so that nothing is sent
	case m.Header.Type == unix.RTM_NEWROUTE && len(m.Data) >= unix.SizeofRtMsg:
		const kind = 7 // of a struct rtmsg
		return m.Data[kind] == unix.RTN_LOCAL || m.Data[kind] == unix.RTN_ANYCAST, nil
	}
	return false, errors.New("the answer about a route is none")
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
