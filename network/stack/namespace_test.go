package stack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/internal/ownthread"
	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// newLinuxGuest gives the network a guest that has Linux's own TCP/IP: a network namespace with a TAP device. The
// functions that are sent run in there, one at a time.
func (l *lab) newLinuxGuest() (run func(func())) {
	l.t.Helper()
	if os.Geteuid() != 0 {
		l.t.Skip("only root may make a network namespace with a TAP device: run the test as root")
	}
	work, ready := make(chan func()), make(chan error)
	var tap *os.File
	go ownthread.Run(func() {
		var err error
		tap, err = enterNamespace()
		ready <- err
		for f := range work {
			f()
		}
	})
	if err := <-ready; err != nil {
		l.t.Fatalf("no network namespace: %v", err)
	}
	pump := func(to, from *os.File) {
		b := make([]byte, 70000)
		for {
			n, err := from.Read(b)
			if err != nil {
				return
			}
			if _, err := to.Write(b[:n]); err != nil && !errors.Is(err, unix.EIO) {
				return
			}
		}
	}
	go pump(tap, l.socket)
	go pump(l.socket, tap)
	l.t.Cleanup(func() {
		close(work)
		l.network.Close()
		tap.Close()
	})
	return func(f func()) {
		done := make(chan struct{})
		work <- func() {
			defer close(done)
			f()
		}
		<-done
	}
}

// enterNamespace moves this thread into a new network namespace and returns the TAP device that is its network.
func enterNamespace() (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, os.NewSyscallError("unshare", err)
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
	}
	request, err := unix.NewIfreq("guest0")
	if err != nil {
		return nil, err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return nil, os.NewSyscallError("ioctl", err)
	}
	card, err := netlink.LinkByName("guest0")
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "tap"), errors.Join(
		netlink.LinkSetMTU(card, MaxMTU),
		netlink.LinkSetHardwareAddr(card, net.HardwareAddr(guestMAC)),
		netlink.AddrAdd(card, &netlink.Addr{IPNet: &net.IPNet{IP: Guest.AsSlice(), Mask: net.CIDRMask(prefixLength, 32)}}),
		netlink.LinkSetUp(card),
		netlink.RouteAdd(&netlink.Route{LinkIndex: card.Attrs().Index, Gw: Gateway.AsSlice()}),
	)
}

func TestWhatALinuxGuestIsTold(t *testing.T) {
	l := newBareLab(t)
	run := l.newLinuxGuest()
	echo := l.listen(80, serveSpeed)
	quiet := l.listenPackets(123, func(b []byte) []byte { return b })
	tells(t, run, []told{
		{"tcp", echo.String(), nil},
		{"udp", quiet.String(), nil},
		{"tcp", netip.AddrPortFrom(public, 81).String(), unix.ECONNREFUSED},
		{"udp", netip.AddrPortFrom(public, 81).String(), unix.ECONNREFUSED},
		{"tcp", "10.0.2.2:22", unix.ECONNREFUSED},
		{"tcp", "10.0.2.3:81", unix.ECONNREFUSED},
		{"udp", "10.0.2.2:161", unix.ECONNREFUSED},
		{"tcp", "93.0.0.1:22", unix.EHOSTUNREACH},
		{"tcp", "192.168.1.1:81", unix.EHOSTUNREACH},
		{"tcp", "169.254.169.254:80", unix.EHOSTUNREACH},
		{"tcp", "100.64.0.1:81", unix.EHOSTUNREACH},
		{"udp", "192.168.1.1:53", unix.EHOSTUNREACH},
	})
}

// told is what a guest is to be told by a connection to an address.
type told struct {
	network, address string
	want             error
}

// tells lets a Linux guest connect.
func tells(t *testing.T, run func(func()), all []told) {
	t.Helper()
	d := net.Dialer{Timeout: patience}
	for _, c := range all {
		run(func() {
			conn, err := d.Dial(c.network, c.address)
			if err == nil {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(patience))
				_, _ = conn.Write([]byte("ex"))
				_, err = conn.Read(make([]byte, 1))
			}
			if !errors.Is(err, c.want) {
				t.Errorf("%s %s: %v, want %v", c.network, c.address, err, c.want)
			}
		})
	}
}

func TestWhatALinuxGuestIsToldByAnAllowlist(t *testing.T) {
	l := newBareLab(t, allow(t, "good.example:*", "gone.example", "loop.example:*", "good.example:123/udp", "1.1.1.1"), resolver(zone{"good.example": {public.String()}, "loop.example": {"127.0.0.1"}}))
	run := l.newLinuxGuest()
	l.listen(22, serveSpeed)
	l.listenPackets(123, func(b []byte) []byte { return b })
	at := func(name string, port uint16) string {
		a, _ := l.network.table.address(name)
		return netip.AddrPortFrom(a, port).String()
	}
	tells(t, run, []told{
		{"tcp", at("good.example", 22), nil},
		{"udp", at("good.example", 123), nil},
		{"tcp", at("good.example", 23), unix.ECONNREFUSED},
		{"udp", at("good.example", 443), unix.EHOSTUNREACH}, // so that QUIC is given up at once
		{"tcp", at("gone.example", 443), unix.EHOSTUNREACH},
		{"tcp", at("gone.example", 22), unix.EHOSTUNREACH},
		{"tcp", at("loop.example", 22), unix.EHOSTUNREACH},
		{"tcp", "198.18.0.0:443", unix.EHOSTUNREACH},
		{"tcp", netip.AddrPortFrom(public, 22).String(), unix.EHOSTUNREACH},
		{"udp", "8.8.8.8:53", unix.EHOSTUNREACH},
		{"udp", "1.1.1.1:443", unix.EHOSTUNREACH},
		{"tcp", "1.1.1.1:443", unix.ECONNREFUSED},
	})
}

// TestNothingOfTheHostIsReached has the dialler and the host's addresses that are used outside of tests.
func TestNothingOfTheHostIsReached(t *testing.T) {
	l := newBareLab(t, func(c *Config) {
		c.Policy = &policy.Policy{Host: HostAddresses}
		c.Dial = nil
	})
	run := l.newLinuxGuest()
	port, isSilent := listenForNobody(t, "tcp4", "0.0.0.0")
	addrs, err := HostAddresses()
	if err != nil {
		t.Fatal(err)
	}
	addrs = append(addrs, Gateway, DNS, netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("0.0.0.0"))
	d := net.Dialer{Timeout: patience}
	for _, a := range addrs {
		if !a.Is4() {
			continue
		}
		run(func() {
			c, err := d.Dial("tcp", netip.AddrPortFrom(a, port).String())
			if err == nil {
				c.Close()
				t.Errorf("the guest connects to %s", a)
			}
		})
	}
	isSilent()
}

// listenForNobody is a service on all of the host's addresses. The function that it returns finds out whether anybody has
// come.
func listenForNobody(t *testing.T, network, all string) (port uint16, isSilent func()) {
	t.Helper()
	listener, err := net.Listen(network, net.JoinHostPort(all, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	at := listener.Addr().(*net.TCPAddr).AddrPort()
	reached := make(chan netip.Addr, 100)
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			reached <- c.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
			c.Close()
		}
	}()
	loopback := netip.IPv6Loopback()
	if network == "tcp4" {
		loopback = netip.MustParseAddr("127.0.0.1")
	}
	return at.Port(), func() {
		t.Helper()
		// What the listener does hear comes after all that may have come before.
		c, err := net.Dial(network, netip.AddrPortFrom(loopback, at.Port()).String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadAll(c)
		c.Close()
		if first := <-reached; first != loopback || len(reached) > 0 {
			t.Errorf("the host's service was reached at %s, and %d times after that", first, len(reached))
		}
	}
}

func TestDialPolicyAsksAboutTheAddressThatIsDialled(t *testing.T) {
	listener := listenLocal(t)
	defer listener.Close()
	at := listener.Addr().(*net.TCPAddr).AddrPort()
	dial := DialPolicy((&policy.Policy{Host: HostAddresses}).Address)
	for _, a := range []netip.AddrPort{at, netip.AddrPortFrom(netip.AddrFrom16(at.Addr().As16()), at.Port())} {
		for _, proto := range []policy.Proto{policy.TCP, policy.UDP, policy.ICMP} {
			c, err := dial(context.Background(), proto, a)
			if closed, ok := errors.AsType[*ClosedError](err); !ok || closed.Rule != policy.RuleLoopback {
				t.Errorf("%s over %s: %v, %v", a, proto, c, err)
			}
		}
	}
}

// What is sent to an address may stay on this machine though none of its interfaces has it.
func TestAnAddressWithALocalRouteIsTheHosts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may make a network namespace: run the test as root")
	}
	rule, err := policy.ParseRule("10.9.0.0/16:*")
	if err != nil {
		t.Fatal(err)
	}
	ownthread.Run(func() {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("no network namespace: %v", err)
			return
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			t.Error(err)
			return
		}
		err = netlink.LinkSetUp(lo)
		local := []string{"93.184.215.14", "10.9.8.7", "2606:2800:21f::1"}
		for _, a := range local {
			ip := net.ParseIP(a)
			bits := 128
			if ip.To4() != nil {
				ip, bits = ip.To4(), 32
			}
			err = errors.Join(err, netlink.RouteAdd(&netlink.Route{
				LinkIndex: lo.Attrs().Index, Dst: &net.IPNet{IP: ip, Mask: net.CIDRMask(bits, bits)}, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST,
			}))
		}
		if err != nil {
			t.Error(err)
			return
		}
		l, err := net.Listen("tcp", ":0")
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		port := l.Addr().(*net.TCPAddr).AddrPort().Port()
		p := &policy.Policy{Host: HostAddresses, Local: IsLocal, Allow: []policy.Rule{rule}}
		for _, a := range local {
			to := netip.AddrPortFrom(netip.MustParseAddr(a), port)
			c, err := DialPolicy(p.Address)(context.Background(), policy.TCP, to)
			if err == nil {
				c.Close()
			}
			if closed, ok := errors.AsType[*ClosedError](err); !ok {
				t.Errorf("%s: %v", a, err)
			} else if to.Addr().IsPrivate() == (closed.Rule == policy.RuleHost) {
				t.Errorf("%s is closed by %s", a, closed.Rule)
			}
		}
		for _, a := range []string{"93.184.215.15", "2606:2800:21f::2"} {
			if local, err := IsLocal(netip.MustParseAddr(a)); local || err != nil {
				t.Errorf("%s, to which no route leads, is the host's (%v): %v", a, local, err)
			}
		}
	})
	for _, a := range []string{"127.0.0.1", "::1"} {
		if local, err := IsLocal(netip.MustParseAddr(a)); !local || err != nil {
			t.Errorf("%s is not the host's: %v", a, err)
		}
	}
}
