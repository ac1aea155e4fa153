package gateway_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
	gbuffer "gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/sourcery-zone/sandbox/network/authority"
	"github.com/sourcery-zone/sandbox/network/gateway"
	"github.com/sourcery-zone/sandbox/network/stack"
)

// guest is one in this process, with a stack of gVisor's.
type guest struct{ stack *netstack.Stack }

func newGuest(t *testing.T, g *gateway.Gateway) *guest {
	t.Helper()
	fd, err := unix.FcntlInt(uintptr(socket(t, g)), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := netstack.New(netstack.Options{
		NetworkProtocols:   []netstack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []netstack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})
	c := &card{fd: fd}
	const nic = 1
	if err := s.CreateNIC(nic, c); err != nil {
		t.Fatal(err)
	}
	own := tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(stack.Guest.AsSlice()), PrefixLen: 24}
	if err := s.AddProtocolAddress(nic, tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: own}, netstack.AddressProperties{}); err != nil {
		t.Fatal(err)
	}
	s.SetRouteTable([]tcpip.Route{
		{Destination: own.Subnet(), NIC: nic},
		{Destination: header.IPv4EmptySubnet, Gateway: tcpip.AddrFromSlice(stack.Gateway.AsSlice()), NIC: nic},
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.receive()
	}()
	t.Cleanup(func() {
		c.closed.Store(true)
		<-ended
		s.Close()
		unix.Close(fd)
	})
	return &guest{s}
}

func (g *guest) dial(ctx context.Context, network string, a netip.AddrPort) (net.Conn, error) {
	to := tcpip.FullAddress{Addr: tcpip.AddrFromSlice(a.Addr().AsSlice()), Port: a.Port()}
	if network == "udp" {
		return gonet.DialUDP(g.stack, nil, &to, ipv4.ProtocolNumber)
	}
	return gonet.DialContextTCP(ctx, g.stack, to, ipv4.ProtocolNumber)
}

// dialName looks a name up as programs in a guest do, and connects to it.
func (g *guest) dialName(ctx context.Context, _, address string) (net.Conn, error) {
	name, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return g.dial(ctx, "udp", netip.AddrPortFrom(stack.DNS, 53))
	}}
	found, err := r.LookupNetIP(ctx, "ip4", name+".")
	if err != nil {
		return nil, err
	}
	a, err := netip.ParseAddrPort(net.JoinHostPort(found[0].Unmap().String(), port))
	if err != nil {
		return nil, fmt.Errorf("the name %s: %w", name, err)
	}
	return g.dial(ctx, "tcp", a)
}

// client speaks HTTP with hosts for which an authority vouches, each time over a connection of its own.
func (g *guest) client(by *authority.Authority) *http.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(by.Certificate())
	return &http.Client{Transport: &http.Transport{DialContext: g.dialName, TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
}

// card is a network card, whose frames are datagrams of a socket.
type card struct {
	fd       int
	attached atomic.Pointer[netstack.NetworkDispatcher]
	closed   atomic.Bool
}

func (c *card) receive() {
	frame := make([]byte, header.EthernetMinimumSize+gateway.MTU)
	for !c.closed.Load() {
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}, 100); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		n, err := unix.Read(c.fd, frame)
		d := c.attached.Load()
		if err != nil || n < header.EthernetMinimumSize || d == nil {
			continue
		}
		pkt := netstack.NewPacketBuffer(netstack.PacketBufferOptions{Payload: gbuffer.MakeWithData(frame[:n])})
		if h, ok := pkt.LinkHeader().Consume(header.EthernetMinimumSize); ok {
			(*d).DeliverNetworkPacket(header.Ethernet(h).Type(), pkt)
		}
		pkt.DecRef()
	}
}

func (c *card) WritePackets(pkts netstack.PacketBufferList) (int, tcpip.Error) {
	for _, pkt := range pkts.AsSlice() {
		_, _ = unix.Write(c.fd, pkt.ToView().AsSlice()) // what nobody reads is lost
	}
	return pkts.Len(), nil
}

const cardMAC = tcpip.LinkAddress("\x52\x54\x00\x01\x02\x03")

func (c *card) AddHeader(p *netstack.PacketBuffer) {
	header.Ethernet(p.LinkHeader().Push(header.EthernetMinimumSize)).Encode(&header.EthernetFields{
		SrcAddr: cardMAC, DstAddr: p.EgressRoute.RemoteLinkAddress, Type: p.NetworkProtocolNumber,
	})
}

func (c *card) Attach(d netstack.NetworkDispatcher) {
	if d == nil {
		c.attached.Store(nil)
		return
	}
	c.attached.Store(&d)
}

func (c *card) MTU() uint32                             { return gateway.MTU }
func (c *card) SetMTU(uint32)                           {}
func (c *card) MaxHeaderLength() uint16                 { return header.EthernetMinimumSize }
func (c *card) LinkAddress() tcpip.LinkAddress          { return cardMAC }
func (c *card) SetLinkAddress(tcpip.LinkAddress)        {}
func (c *card) Wait()                                   {}
func (c *card) Close()                                  {}
func (c *card) SetOnCloseAction(func())                 {}
func (c *card) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }
func (c *card) IsAttached() bool                        { return c.attached.Load() != nil }
func (c *card) ParseHeader(*netstack.PacketBuffer) bool { return true }

func (c *card) Capabilities() netstack.LinkEndpointCapabilities {
	return netstack.CapabilityResolutionRequired
}
