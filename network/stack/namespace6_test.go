package stack

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// newLinuxGuest6 gives the network a Linux guest that has got an address of IPv6 and a route by its router's advertisement.
func (l *lab) newLinuxGuest6() (run func(func()), address netip.Addr) {
	l.t.Helper()
	run = l.newLinuxGuest()
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(50 * time.Millisecond); !address.IsValid(); <-tick.C {
		run(func() { address = advertisedAddress(l.t) })
		if time.Now().After(deadline) {
			l.t.Fatal("the guest gets no address of IPv6")
		}
	}
	return run, address
}

// advertisedAddress returns the address that the guest has made and may use.
func advertisedAddress(t testing.TB) (address netip.Addr) {
	card, err := netlink.LinkByName("guest0")
	if err != nil {
		t.Fatal(err)
	}
	found, err := netlink.AddrList(card, netlink.FAMILY_V6)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range found {
		if ip, _ := netip.AddrFromSlice(a.IP); Prefix6.Contains(ip) && a.Flags&unix.IFA_F_TENTATIVE == 0 {
			address = ip
		}
	}
	return address
}

// leads6 has a service at an address of IPv6 as well.
func (l *lab) leads6(services ...netip.AddrPort) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range services {
		l.services[netip.AddrPortFrom(public6, a.Port())] = l.services[a]
	}
}

func TestWhatALinuxGuestIsToldOverIPv6(t *testing.T) {
	l := newBareLab(t, withIPv6, func(c *Config) {
		c.Policy = &policy.Policy{Host: func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("2a00:1:2:3::7")}, nil }}
	})
	echo := l.listen(80, serveSpeed)
	quiet := l.listenPackets(123, func(b []byte) []byte { return b })
	l.leads6(echo, quiet)
	run, _ := l.newLinuxGuest6()
	at := func(port uint16) string { return netip.AddrPortFrom(public6, port).String() }
	tells(t, run, []told{
		{"tcp", at(80), nil},
		{"udp", at(123), nil},
		{"tcp", at(81), unix.ECONNREFUSED},
		{"udp", at(81), unix.ECONNREFUSED},
		{"tcp", "[fe80::2%guest0]:22", unix.ECONNREFUSED},
		{"udp", "[fe80::2%guest0]:161", unix.ECONNREFUSED},
		{"tcp", "[2a00:1:2:3::7]:22", unix.EACCES},
		{"tcp", "[2a00:1:2:3::8]:22", unix.EACCES},
		{"tcp", "[fd12::1]:81", unix.EACCES},
		{"tcp", "[fd5a:b3c1:9e4d:2::77]:81", unix.EACCES},
		{"tcp", "[64:ff9b::7f00:1]:81", unix.EACCES},
		{"udp", "[fd12::1]:53", unix.EACCES},
		{"tcp", echo.String(), nil}, // IPv4 is as it was
		{"tcp", "192.168.1.1:81", unix.EHOSTUNREACH},
	})
}

func TestALinuxGuestWithIPv6HasItsRouterAndMTU(t *testing.T) {
	l := newBareLab(t, withIPv6, func(c *Config) { c.MTU = 9000 })
	run, address := l.newLinuxGuest6()
	run(func() {
		card, err := netlink.LinkByName("guest0")
		if err != nil {
			t.Fatal(err)
		}
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{LinkIndex: card.Attrs().Index}, netlink.RT_FILTER_OIF)
		if err != nil {
			t.Fatal(err)
		}
		gateways := 0
		for _, r := range routes {
			if via, ok := netip.AddrFromSlice(r.Gw); ok {
				gateways++
				if via != Gateway6 {
					t.Errorf("there is the route %s", r)
				}
			}
			if r.Dst != nil && r.Dst.IP.Equal(Prefix6.Addr().AsSlice()) {
				t.Errorf("the prefix is taken for a link: %s", r)
			}
		}
		if gateways != 1 {
			t.Errorf("there are the routes %v", routes)
		}
		if mtu, err := os.ReadFile("/proc/sys/net/ipv6/conf/guest0/mtu"); err != nil || string(mtu) != "9000\n" {
			t.Errorf("the MTU of IPv6 is %q, %v", mtu, err)
		}
	})
	if !isGuest6(address) {
		t.Errorf("the guest's address is %s", address)
	}
}

func TestALinuxGuestSendsAndReceivesOverIPv6(t *testing.T) {
	l := newBareLab(t, withIPv6)
	l.leads6(l.listen(80, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, c)
	}))
	run, address := l.newLinuxGuest6()
	run(func() {
		d := net.Dialer{Timeout: patience}
		c, err := d.Dial("tcp6", netip.AddrPortFrom(public6, 80).String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if from := c.LocalAddr().(*net.TCPAddr).AddrPort().Addr(); from != address {
			t.Errorf("it connects from %s, and has %s", from, address)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		sent := make([]byte, 4<<20)
		for i := range sent {
			sent[i] = byte(i * 7 >> 3)
		}
		go func() {
			_, _ = c.Write(sent)
			_ = c.(*net.TCPConn).CloseWrite()
		}()
		if received, err := io.ReadAll(c); err != nil || !bytes.Equal(received, sent) {
			t.Errorf("of %d bytes, %d come back: %v", len(sent), len(received), err)
		}
	})
	e := l.event(func(e Event) bool { return e.Proto == "tcp" })
	if e.Addr != netip.AddrPortFrom(public6, 80) || !e.Allowed || e.Sent != 4<<20 || e.Received != 4<<20 {
		t.Errorf("it is logged as %+v", e)
	}
}

// TestNothingOfTheHostIsReachedOverIPv6 has the dialler and the host's addresses that are used outside of tests.
func TestNothingOfTheHostIsReachedOverIPv6(t *testing.T) {
	l := newBareLab(t, withIPv6, func(c *Config) {
		c.Policy = &policy.Policy{Host: HostAddresses}
		c.Dial = nil
	})
	port, isSilent := listenForNobody(t, "tcp6", "::")
	addrs, err := HostAddresses()
	if err != nil {
		t.Fatal(err)
	}
	run, _ := l.newLinuxGuest6()
	d := net.Dialer{Timeout: patience}
	for _, a := range append(addrs, Gateway6, netip.MustParseAddr("64:ff9b::7f00:1"), netip.MustParseAddr("2002:7f00:1::1"), netip.MustParseAddr("::ffff:10.0.2.2")) {
		if a.Is4() || a.IsLoopback() { // which are the guest's own
			continue
		}
		if a == Gateway6 {
			a = a.WithZone("guest0")
		} else if a.IsLinkLocalUnicast() { // nobody on the guest's link has it
			continue
		}
		run(func() {
			if c, err := d.Dial("tcp", netip.AddrPortFrom(a, port).String()); err == nil {
				c.Close()
				t.Errorf("the guest connects to %s", a)
			}
		})
	}
	isSilent()
}

func TestALinuxGuestPingsOverIPv6(t *testing.T) {
	l := newBareLab(t, withIPv6)
	pong := l.listenPackets(0, func(b []byte) []byte {
		out := append([]byte{byte(ipv6.ICMPTypeEchoReply), 0, 0, 0, 0x12, 0x34}, b[6:]...) // under another number, as from the kernel
		return out
	})
	l.leads6(pong)
	run, _ := l.newLinuxGuest6()
	for _, to := range []string{public6.String(), "fe80::2%guest0"} {
		run(func() {
			conn, err := icmp.ListenPacket("ip6:ipv6-icmp", "::")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			request, err := (&icmp.Message{Type: ipv6.ICMPTypeEchoRequest, Body: &icmp.Echo{ID: 77, Seq: 3, Data: []byte("hello")}}).Marshal(nil)
			if err != nil {
				t.Fatal(err)
			}
			target, err := net.ResolveIPAddr("ip6", to)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.WriteTo(request, target); err != nil {
				t.Fatal(err)
			}
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			b := make([]byte, 1500)
			for {
				k, from, err := conn.ReadFrom(b)
				if err != nil {
					t.Errorf("%s does not answer: %v", to, err)
					return
				}
				m, err := icmp.ParseMessage(58, b[:k])
				if err != nil {
					t.Fatal(err)
				}
				if reply, ok := m.Body.(*icmp.Echo); ok && m.Type == ipv6.ICMPTypeEchoReply {
					if reply.ID != 77 || reply.Seq != 3 || string(reply.Data) != "hello" {
						t.Errorf("%s answers %+v", from, reply)
					}
					return
				}
			}
		})
	}
}

func TestALinuxGuestForgetsARouterThatIsWithdrawn(t *testing.T) {
	l := newBareLab(t, withIPv6)
	run, _ := l.newLinuxGuest6()
	tells(t, run, []told{{"tcp", "[fd12::1]:81", unix.EACCES}})
	l.network.advertise(0, 0)
	d := net.Dialer{Timeout: time.Second} // one for which the route was there yet has none for what it sends again
	for deadline := time.Now().Add(patience); ; {
		var err error
		run(func() { _, err = d.Dial("tcp", "[fd12::1]:81") })
		if errors.Is(err, unix.ENETUNREACH) {
			return
		}
		// Between the two, it may find out that the router's neighbour entry is of no use any more: EHOSTUNREACH.
		if err == nil || time.Now().After(deadline) {
			t.Fatalf("it is told %v", err)
		}
	}
}

func TestTheUserIsAskedForAnAddressOfIPv6(t *testing.T) {
	asked, ask := asks()
	l := newBareLab(t, withIPv6, allow(t), ask)
	l.leads6(l.listen(22, serveSpeed))
	run, _ := l.newLinuxGuest6()
	go func() {
		q := asked.next(t)
		if want := netip.AddrPortFrom(public6, 22); q.Host != public6.String() || q.Port != 22 || q.Rule != want.String() {
			t.Errorf("the question is %+v", q)
		}
		l.setRules([]string{q.Rule}, nil)
	}()
	tells(t, run, []told{
		{"tcp", netip.AddrPortFrom(public6, 22).String(), nil},
		{"udp", netip.AddrPortFrom(public6, 22).String(), unix.EACCES},
	})
}
