package stack

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/network/policy"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

const guestMAC = tcpip.LinkAddress("\x52\x54\x00\x01\x02\x03")

// patience is how long a test waits for what has to come.
const patience = 60 * time.Second

// public is where services of the Internet listen in tests. Dialling leads to a listener of the test's.
var public = netip.MustParseAddr("93.184.215.14")

// lab is a network with a guest in this process.
type lab struct {
	t       testing.TB
	config  Config
	network *Network
	guest   *netstack.Stack
	link    *link
	socket  *os.File // the guest's end of the link, where there is no stack

	paused sync.Mutex // is held while the guest takes nothing

	mu       sync.Mutex
	events   []Event
	services map[netip.AddrPort]netip.AddrPort // where an address of the Internet leads
	dialed   []netip.AddrPort
	changed  chan struct{}
}

type option func(*Config)

// newLab starts a network whose guest is a stack of gVisor's.
func newLab(t testing.TB, options ...option) *lab {
	l := newBareLab(t, options...)
	l.startGuest()
	return l
}

// withDeadlines takes over one end of a link, which a test then need not wait for in vain.
func withDeadlines(t testing.TB, f *os.File) *os.File {
	t.Helper()
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), f.Name())
}

// newBareLab starts one whose guest is the test, with raw frames.
func newBareLab(t testing.TB, options ...option) *lab {
	t.Helper()
	ours, guests, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, socket: withDeadlines(t, guests), services: map[netip.AddrPort]netip.AddrPort{}, changed: make(chan struct{}, 1)}
	l.config = Config{
		Link: ours, MTU: MaxMTU,
		Policy: &policy.Policy{Host: func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("93.0.0.1")}, nil }},
		Log:    l.log,
		Dial:   l.dial,
		Servers: func() ([]netip.AddrPort, error) {
			return nil, errors.New("the test has no servers")
		},
	}
	if testing.Verbose() {
		l.config.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	for _, o := range options {
		o(&l.config)
	}
	if l.network, err = New(l.config); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- l.network.Serve(context.Background()) }()
	t.Cleanup(func() {
		l.network.Close()
		if err := <-served; !errors.Is(err, net.ErrClosed) {
			t.Errorf("the network ended with: %v", err)
		}
		l.socket.Close()
	})
	return l
}

func (l *lab) startGuest() {
	l.t.Helper()
	l.guest = netstack.New(netstack.Options{
		NetworkProtocols:   []netstack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []netstack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	sack := tcpip.TCPSACKEnabled(true)
	if err := l.guest.SetTransportProtocolOption(tcp.ProtocolNumber, &sack); err != nil {
		l.t.Fatal(err)
	}
	var err error
	if l.link, err = newLink(l.socket, l.config.MTU, guestMAC, func([]byte) bool {
		l.paused.Lock()
		defer l.paused.Unlock()
		return true
	}); err != nil {
		l.t.Fatal(err)
	}
	gateway := gatewayMAC
	l.link.peer.Store(&gateway)
	if err := l.guest.CreateNIC(nic, l.link); err != nil {
		l.t.Fatal(err)
	}
	err2 := l.guest.AddProtocolAddress(nic, tcpip.ProtocolAddress{
		Protocol:          ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpipAddress(Guest), PrefixLen: prefixLength},
	}, netstack.AddressProperties{})
	if err2 != nil {
		l.t.Fatal(err2)
	}
	subnet := tcpip.AddressWithPrefix{Address: tcpipAddress(Guest), PrefixLen: prefixLength}.Subnet()
	l.guest.SetRouteTable([]tcpip.Route{
		{Destination: subnet, NIC: nic},
		{Destination: header.IPv4EmptySubnet, Gateway: tcpipAddress(Gateway), NIC: nic},
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = l.link.serve()
	}()
	l.t.Cleanup(func() {
		l.network.Close()
		l.guest.Close()
		_ = l.link.shut()
		<-done
	})
}

func (l *lab) log(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// event waits for an event.
func (l *lab) event(match func(Event) bool) Event {
	l.t.Helper()
	deadline := time.After(patience)
	for {
		l.mu.Lock()
		for _, e := range l.events {
			if match(e) {
				l.mu.Unlock()
				return e
			}
		}
		events := l.events
		l.mu.Unlock()
		select {
		case <-l.changed:
		case <-deadline:
			l.t.Fatalf("there is no such event among %+v", events)
		}
	}
}

// seen returns what was logged and dialled until now.
func (l *lab) seen() ([]Event, []netip.AddrPort) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events), slices.Clone(l.dialed)
}

// dial stands for the Internet, behind the check that the real one has.
func (l *lab) dial(ctx context.Context, proto policy.Proto, a netip.AddrPort) (net.Conn, error) {
	l.mu.Lock()
	l.dialed = append(l.dialed, a)
	to, ok := l.services[a]
	l.mu.Unlock()
	if !ok {
		to = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 1) // where nothing listens
	}
	if proto == policy.ICMP {
		proto = policy.UDP // a service of the test's does what the kernel does
	}
	var d net.Dialer
	return d.DialContext(ctx, string(proto), to.String())
}

// listen makes a TCP service at a port of the public address, which serve serves.
func (l *lab) listen(port uint16, serve func(*net.TCPConn)) netip.AddrPort {
	l.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { listener.Close() })
	a := netip.AddrPortFrom(public, port)
	l.mu.Lock()
	l.services[a] = listener.Addr().(*net.TCPAddr).AddrPort()
	l.mu.Unlock()
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(c.(*net.TCPConn))
		}
	}()
	return a
}

func full(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: tcpipAddress(a.Addr()), Port: a.Port()}
}

// connect connects the guest.
func (l *lab) connect(a netip.AddrPort) (*gonet.TCPConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return gonet.DialContextTCP(ctx, l.guest, full(a), ipv4.ProtocolNumber)
}

func (l *lab) mustConnect(a netip.AddrPort) *gonet.TCPConn {
	l.t.Helper()
	c, err := l.connect(a)
	if err != nil {
		l.t.Fatalf("the guest cannot connect to %s: %v", a, err)
	}
	l.t.Cleanup(func() { c.Close() })
	return c
}
