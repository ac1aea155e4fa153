package stack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/network/policy"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

func ethernet(to, from tcpip.LinkAddress, kind tcpip.NetworkProtocolNumber, packet []byte) []byte {
	f := make(header.Ethernet, header.EthernetMinimumSize)
	f.Encode(&header.EthernetFields{SrcAddr: from, DstAddr: to, Type: kind})
	return append(f, packet...)
}

func arpPacket(op header.ARPOp, mac tcpip.LinkAddress, sender, target netip.Addr) []byte {
	a := make(header.ARP, header.ARPSize)
	a.SetIPv4OverEthernet()
	a.SetOp(op)
	copy(a.HardwareAddressSender(), mac)
	copy(a.ProtocolAddressSender(), sender.AsSlice())
	copy(a.ProtocolAddressTarget(), target.AsSlice())
	return a
}

func ipPacket(from, to netip.Addr, proto tcpip.TransportProtocolNumber, payload []byte) header.IPv4 {
	h := make(header.IPv4, header.IPv4MinimumSize)
	h.Encode(&header.IPv4Fields{TotalLength: uint16(len(h) + len(payload)), TTL: 64, Protocol: uint8(proto), SrcAddr: tcpipAddress(from), DstAddr: tcpipAddress(to)})
	h.SetChecksum(^h.CalculateChecksum())
	return append(h, payload...)
}

func tcpSegment(from, to netip.AddrPort, flags header.TCPFlags) []byte {
	return tcpData(from, to, flags, 1, 7, nil, nil)
}

// tcpData is a segment with the numbers, options and data that it is given.
func tcpData(from, to netip.AddrPort, flags header.TCPFlags, number, ack uint32, options, data []byte) []byte {
	h := make(header.TCP, header.TCPMinimumSize+len(options))
	h.Encode(&header.TCPFields{SrcPort: from.Port(), DstPort: to.Port(), SeqNum: number, AckNum: ack, DataOffset: uint8(len(h)), Flags: flags, WindowSize: 65535})
	copy(h[header.TCPMinimumSize:], options)
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, tcpipAddress(from.Addr()), tcpipAddress(to.Addr()), uint16(len(h)+len(data)))
	h.SetChecksum(^h.CalculateChecksum(checksum.Checksum(data, sum)))
	return ipPacket(from.Addr(), to.Addr(), header.TCPProtocolNumber, append(h, data...))
}

func udpDatagram(from, to netip.AddrPort, payload []byte) header.IPv4 {
	h := make(header.UDP, header.UDPMinimumSize)
	h.Encode(&header.UDPFields{SrcPort: from.Port(), DstPort: to.Port(), Length: uint16(len(h) + len(payload))})
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, tcpipAddress(from.Addr()), tcpipAddress(to.Addr()), uint16(len(h)+len(payload)))
	h.SetChecksum(^h.CalculateChecksum(checksum.Checksum(payload, sum)))
	return ipPacket(from.Addr(), to.Addr(), header.UDPProtocolNumber, append(h, payload...))
}

func echoRequest(to netip.Addr) []byte {
	h := make(header.ICMPv4, header.ICMPv4MinimumSize)
	h.SetType(header.ICMPv4Echo)
	h.SetChecksum(header.ICMPv4Checksum(h, 0))
	return ipPacket(Guest, to, header.ICMPv4ProtocolNumber, h)
}

func (l *lab) send(frame []byte) {
	l.t.Helper()
	if _, err := l.socket.Write(frame); err != nil {
		l.t.Fatal(err)
	}
}

// sendIP sends a packet as the guest does.
func (l *lab) sendIP(packet []byte) {
	l.t.Helper()
	to, kind := gatewayMAC, header.IPv4ProtocolNumber
	if header.IPVersion(packet) == header.IPv6Version {
		kind = header.IPv6ProtocolNumber
		if a := netip.AddrFrom16(header.IPv6(packet).DestinationAddress().As16()); a.IsMulticast() {
			to = header.EthernetAddressFromMulticastIPv6Address(tcpipAddress(a))
		}
	}
	l.send(ethernet(to, guestMAC, kind, packet))
}

func (l *lab) receive() []byte {
	l.t.Helper()
	_ = l.socket.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 70000)
	n, err := l.socket.Read(b)
	if err != nil {
		l.t.Fatalf("the network sends nothing: %v", err)
	}
	return b[:n]
}

// barrier sends a question that has an answer, and returns all that was sent before that. All frames are handled in
// their order, and what is refused at once is so before the next one is read.
func (l *lab) barrier() (before [][]byte) {
	l.t.Helper()
	l.send(ethernet(broadcastMAC, guestMAC, header.ARPProtocolNumber, arpPacket(header.ARPRequest, guestMAC, Guest, DNS)))
	for {
		f := l.receive()
		if header.Ethernet(f).Type() == header.ARPProtocolNumber {
			a := header.ARP(f[header.EthernetMinimumSize:])
			if a.Op() == header.ARPReply && slices.Equal(a.ProtocolAddressSender(), DNS.AsSlice()) {
				return before
			}
		}
		before = append(before, f)
	}
}

// segment waits for a segment of TCP from one address to another that match accepts.
func (l *lab) segment(from, to netip.AddrPort, match func(header.TCP) bool) header.TCP {
	l.t.Helper()
	for {
		f := l.receive()
		packet := header.IPv4(f[header.EthernetMinimumSize:])
		if header.Ethernet(f).Type() != header.IPv4ProtocolNumber || packet.TransportProtocol() != header.TCPProtocolNumber ||
			packet.SourceAddress() != tcpipAddress(from.Addr()) || packet.DestinationAddress() != tcpipAddress(to.Addr()) {
			continue
		}
		if h := header.TCP(packet.Payload()); h.SourcePort() == from.Port() && h.DestinationPort() == to.Port() && match(h) {
			return h
		}
	}
}

// what describes a frame: its ICMP error, or the flags of its segment.
func what(frame []byte) string {
	packet := frame[header.EthernetMinimumSize:]
	var proto tcpip.TransportProtocolNumber
	var payload []byte
	switch header.Ethernet(frame).Type() {
	case header.IPv4ProtocolNumber:
		proto, payload = header.IPv4(packet).TransportProtocol(), header.IPv4(packet).Payload()
	case header.IPv6ProtocolNumber:
		proto, payload = tcpip.TransportProtocolNumber(header.IPv6(packet).NextHeader()), header.IPv6(packet).Payload()
	default:
		return "no IP"
	}
	switch proto {
	case header.ICMPv4ProtocolNumber:
		h := header.ICMPv4(payload)
		return fmt.Sprintf("ICMP %d/%d", h.Type(), h.Code())
	case header.ICMPv6ProtocolNumber:
		h := header.ICMPv6(payload)
		if !hasChecksum(packet, h) {
			return "a wrong checksum"
		}
		return fmt.Sprintf("ICMPv6 %d/%d", h.Type(), h.Code())
	case header.TCPProtocolNumber:
		return header.TCP(payload).Flags().String()
	}
	return fmt.Sprint("protocol ", proto)
}

// closedPacket is a packet that the guest sends to something closed, with what it is answered.
type closedPacket struct {
	packet []byte
	want   string
}

// refuses sends packets that a rule closes, and holds that each has its one answer, and that nobody is dialled.
func (l *lab) refuses(to netip.AddrPort, rule string, packets ...closedPacket) {
	l.t.Helper()
	for i, p := range packets {
		l.sendIP(p.packet)
		answers := l.barrier()
		if len(answers) != 1 || what(answers[0]) != p.want {
			l.t.Errorf("%s: the packet %d gets %d answers (want 1, %s):", to, i, len(answers), p.want)
			for _, a := range answers {
				l.t.Errorf("\t%s", what(a))
			}
		}
	}
	events, dialed := l.seen()
	for _, e := range events {
		if e.Allowed || e.Rule != rule {
			l.t.Errorf("%s is logged as %+v", to, e)
		}
	}
	if len(dialed) > 0 {
		l.t.Errorf("the host dialled %v", dialed)
	}
}

var (
	prohibited  = "ICMP 3/13"
	unreachable = "ICMP 3/3"
	reset       = (header.TCPFlagRst | header.TCPFlagAck).String()
)

func TestRefusalsOnTheWire(t *testing.T) {
	from := netip.AddrPortFrom(Guest, 4000)
	for _, c := range []struct{ to, rule, tcp, udp, icmp string }{
		{"127.0.0.1:81", policy.RuleLoopback, prohibited, prohibited, prohibited},
		{"127.1.2.3:81", policy.RuleLoopback, prohibited, prohibited, prohibited},
		{"93.0.0.1:81", policy.RuleHost, prohibited, prohibited, prohibited},
		{"192.168.1.1:81", policy.RulePrivate, prohibited, prohibited, prohibited},
		{"169.254.169.254:80", policy.RuleMetadata, prohibited, prohibited, prohibited},
		{"100.64.0.1:81", policy.RuleShared, prohibited, prohibited, prohibited},
		{"198.18.0.1:81", policy.RuleReserved, prohibited, prohibited, prohibited},
		{"240.0.0.1:81", policy.RuleReserved, prohibited, prohibited, prohibited},
		{"10.0.2.99:81", policy.RulePrivate, prohibited, prohibited, prohibited},
		{"10.0.2.2:22", RuleGateway, reset, unreachable, "ICMP 0/0"},
		{"10.0.2.3:81", RuleGateway, reset, unreachable, "ICMP 0/0"},
	} {
		l := newBareLab(t)
		l.barrier()
		to := netip.MustParseAddrPort(c.to)
		l.refuses(to, c.rule,
			closedPacket{tcpSegment(from, to, header.TCPFlagSyn), c.tcp},
			closedPacket{udpDatagram(from, to, []byte("x")), c.udp},
			closedPacket{echoRequest(to.Addr()), c.icmp},
		)
	}
}

func TestASegmentOfAConnectionFromBeforeIsReset(t *testing.T) {
	l := newBareLab(t)
	l.sendIP(tcpSegment(netip.AddrPortFrom(Guest, 4000), netip.AddrPortFrom(public, 443), header.TCPFlagAck|header.TCPFlagPsh))
	answers := l.barrier()
	if len(answers) != 1 || header.TCP(header.IPv4(answers[0][header.EthernetMinimumSize:]).Payload()).Flags()&header.TCPFlagRst == 0 {
		t.Errorf("it gets %d answers", len(answers))
	}
}

func TestFlowsBeyondTheLimitAreRefused(t *testing.T) {
	l := newBareLab(t)
	for range maxFlows {
		if !l.network.addFlow() {
			t.Fatal("there are fewer places than the limit says")
		}
	}
	l.sendIP(udpDatagram(netip.AddrPortFrom(Guest, 4000), netip.AddrPortFrom(public, 53), []byte("x")))
	if answers := l.barrier(); len(answers) != 1 || what(answers[0]) != unreachable {
		t.Errorf("beyond the limit, there are %d answers", len(answers))
	}
}

func TestFramesThatAreNotTheGuestsOwnAreDropped(t *testing.T) {
	const otherMAC = tcpip.LinkAddress("\x52\x54\x00\x09\x09\x09")
	gatewayIP, other := Gateway, netip.MustParseAddr("10.0.2.77")
	syn := func(from netip.Addr) []byte {
		return tcpSegment(netip.AddrPortFrom(from, 4000), netip.AddrPortFrom(public, 80), header.TCPFlagSyn)
	}
	fragment := header.IPv4(syn(Guest))
	fragment.SetFlagsFragmentOffset(header.IPv4FlagMoreFragments, 0)
	fragment.SetChecksum(0)
	fragment.SetChecksum(^fragment.CalculateChecksum())
	short := header.IPv4(syn(Guest))
	short.SetTotalLength(2000)
	l := newBareLab(t)
	l.barrier()
	l.drops(map[string][]byte{
		"another MAC":                    ethernet(gatewayMAC, otherMAC, header.IPv4ProtocolNumber, syn(Guest)),
		"the gateway's MAC":              ethernet(gatewayMAC, gatewayMAC, header.IPv4ProtocolNumber, syn(Guest)),
		"a multicast MAC":                ethernet(gatewayMAC, "\x01\x00\x5e\x00\x00\x01", header.IPv4ProtocolNumber, syn(Guest)),
		"to another MAC":                 ethernet(otherMAC, guestMAC, header.IPv4ProtocolNumber, syn(Guest)),
		"another IP address":             ethernet(gatewayMAC, guestMAC, header.IPv4ProtocolNumber, syn(other)),
		"the gateway's IP address":       ethernet(gatewayMAC, guestMAC, header.IPv4ProtocolNumber, syn(gatewayIP)),
		"a public IP address":            ethernet(gatewayMAC, guestMAC, header.IPv4ProtocolNumber, syn(public)),
		"no IP address":                  ethernet(gatewayMAC, guestMAC, header.IPv4ProtocolNumber, syn(netip.IPv4Unspecified())),
		"a loopback IP address":          ethernet(gatewayMAC, guestMAC, header.IPv4ProtocolNumber, syn(netip.MustParseAddr("127.0.0.1"))),
		"a fragment of TCP":              ethernet(gatewayMAC, guestMAC, header.IPv4ProtocolNumber, fragment),
		"a packet longer than its frame": ethernet(gatewayMAC, guestMAC, header.IPv4ProtocolNumber, short),
		"to all":                         ethernet(broadcastMAC, guestMAC, header.IPv4ProtocolNumber, udpDatagram(netip.AddrPortFrom(Guest, 1), netip.AddrPortFrom(broadcast, 137), nil)),
		"to all, directed":               ethernet(broadcastMAC, guestMAC, header.IPv4ProtocolNumber, syn(Guest)),
		"multicast":                      ethernet(gatewayMAC, guestMAC, header.IPv4ProtocolNumber, udpDatagram(netip.AddrPortFrom(Guest, 1), netip.MustParseAddrPort("224.0.0.251:5353"), nil)),
		"ARP for the gateway's address":  ethernet(broadcastMAC, guestMAC, header.ARPProtocolNumber, arpPacket(header.ARPRequest, guestMAC, gatewayIP, gatewayIP)),
		"ARP for others":                 ethernet(broadcastMAC, guestMAC, header.ARPProtocolNumber, arpPacket(header.ARPRequest, guestMAC, Guest, other)),
		"ARP with another MAC":           ethernet(broadcastMAC, guestMAC, header.ARPProtocolNumber, arpPacket(header.ARPReply, otherMAC, Guest, gatewayIP)),
		"ARP that is cut off":            ethernet(broadcastMAC, guestMAC, header.ARPProtocolNumber, []byte{0, 1}),
		"IPv6":                           ethernet(gatewayMAC, guestMAC, header.IPv6ProtocolNumber, make([]byte, 60)),
		"VLAN":                           ethernet(gatewayMAC, guestMAC, 0x8100, syn(Guest)),
		"half a header":                  []byte("\x52\x55\x0a\x00\x02\x02\x52\x54"),
		"nothing":                        {},
		"too much":                       ethernet(gatewayMAC, guestMAC, header.IPv4ProtocolNumber, make([]byte, MaxMTU+1)),
	})
	if _, dialed := l.seen(); len(dialed) > 0 {
		t.Errorf("the host dialled %v", dialed)
	}
}

// A fork has its parent's hardware address until its agent gives it its own.
func TestAForkTakesOnTheAddressOfItsCard(t *testing.T) {
	const card, otherMAC = tcpip.LinkAddress("\x52\x54\x00\x07\x07\x07"), tcpip.LinkAddress("\x52\x54\x00\x09\x09\x09")
	l := newBareLab(t, func(c *Config) { c.Card = net.HardwareAddr(card) })
	l.barrier()
	asks := func(from tcpip.LinkAddress) []byte {
		return ethernet(broadcastMAC, from, header.ARPProtocolNumber, arpPacket(header.ARPRequest, from, Guest, Gateway))
	}
	l.drops(map[string][]byte{"another address than that of either": asks(otherMAC)})
	l.send(asks(card))
	if got := header.Ethernet(l.receive()); got.DestinationAddress() != card || got.SourceAddress() != gatewayMAC {
		t.Errorf("the card is answered by a frame from %s to %s", got.SourceAddress(), got.DestinationAddress())
	}
	dropped, _ := l.network.Dropped()
	l.send(asks(guestMAC))
	l.send(asks(card))
	if got := header.Ethernet(l.receive()); got.DestinationAddress() != card {
		t.Errorf("what the parent's address asks is answered to %s", got.DestinationAddress())
	}
	if now, _ := l.network.Dropped(); now != dropped+1 {
		t.Errorf("%d frames of the parent's address are dropped, want 1", now-dropped)
	}
}

// A restored guest may speak before it is told that it is a fork, and say nothing after that, or that its address is another.
func TestAForkThatHasSpokenAsItsParentIsReachedAtItsCard(t *testing.T) {
	const card = tcpip.LinkAddress("\x52\x54\x00\x07\x07\x07")
	for _, announced := range []bool{false, true} {
		l := newBareLab(t, func(c *Config) { c.Card = net.HardwareAddr(card) })
		l.barrier() // from the parent's address
		if before, _ := l.network.Dropped(); announced {
			l.send(ethernet(broadcastMAC, card, header.ARPProtocolNumber, arpPacket(header.ARPRequest, card, Guest, Guest)))
			for now := before; now == before; now, _ = l.network.Dropped() {
				time.Sleep(time.Millisecond)
			}
		}
		l.published(22)
		for reached := false; !reached; {
			frame := header.Ethernet(l.receive())
			if frame.Type() == header.ARPProtocolNumber {
				if announced {
					t.Error("a guest that has announced its address is asked for it")
				}
				l.send(ethernet(gatewayMAC, card, header.ARPProtocolNumber, arpPacket(header.ARPReply, card, Guest, Gateway)))
			}
			reached = frame.DestinationAddress() == card && what(frame) == header.TCPFlagSyn.String()
		}
	}
}

// drops sends frames that are not the guest's own, and holds that each is dropped without an answer.
func (l *lab) drops(frames map[string][]byte) {
	l.t.Helper()
	dropped, _ := l.network.Dropped()
	for name, frame := range frames {
		l.send(frame)
		if answers := l.barrier(); len(answers) > 0 {
			l.t.Errorf("%s is answered: %s", name, what(answers[0]))
		}
		dropped++
		if n, _ := l.network.Dropped(); n != dropped {
			l.t.Errorf("%s: %d frames are dropped, want %d", name, n, dropped)
			dropped = n
		}
	}
}

func FuzzFrames(f *testing.F) {
	to := netip.AddrPortFrom(public, 80)
	from := netip.AddrPortFrom(Guest, 4000)
	f.Add(arpPacket(header.ARPRequest, guestMAC, Guest, Gateway), uint16(header.ARPProtocolNumber))
	f.Add(tcpSegment(from, to, header.TCPFlagSyn), uint16(header.IPv4ProtocolNumber))
	f.Add([]byte(udpDatagram(from, netip.AddrPortFrom(DNS, 53), query("a.test", 1, 512))), uint16(header.IPv4ProtocolNumber))
	f.Add([]byte(udpDatagram(netip.AddrPortFrom(netip.IPv4Unspecified(), 68), netip.AddrPortFrom(broadcast, 67), discover())), uint16(header.IPv4ProtocolNumber))
	f.Add(echoRequest(Gateway), uint16(header.IPv4ProtocolNumber))
	to6, from6 := netip.AddrPortFrom(public6, 80), netip.AddrPortFrom(guest6, 4000)
	for _, packet := range [][]byte{
		tcpSegment6(from6, to6, header.TCPFlagSyn),
		udpDatagram6(from6, to6, []byte("x")),
		echoRequest6(Gateway6),
		neighborSolicitation(guestLink6, solicitedNode, Gateway6),
		routerSolicitation(guestLink6),
	} {
		f.Add(packet, uint16(header.IPv6ProtocolNumber))
	}
	for _, frame := range notTheGuests6() {
		f.Add(frame[header.EthernetMinimumSize:], uint16(header.IPv6ProtocolNumber))
	}
	l := newBareLab(f, withIPv6)
	go func() {
		b := make([]byte, 70000)
		for {
			if _, err := l.socket.Read(b); errors.Is(err, os.ErrClosed) {
				return
			}
		}
	}()
	f.Fuzz(func(t *testing.T, packet []byte, kind uint16) {
		if len(packet) > MaxMTU {
			return
		}
		if kind == uint16(header.IPv4ProtocolNumber) && len(packet) >= header.IPv4MinimumSize {
			packet = bytes.Clone(packet)
			// So that more gets through than the first test.
			h := header.IPv4(packet)
			if int(h.HeaderLength()) >= header.IPv4MinimumSize && int(h.HeaderLength()) <= len(packet) {
				binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
				h.SetChecksum(0)
				h.SetChecksum(^h.CalculateChecksum())
			}
		}
		if kind == uint16(header.IPv6ProtocolNumber) && len(packet) >= header.IPv6MinimumSize {
			packet = bytes.Clone(packet)
			h := header.IPv6(packet)
			h.SetPayloadLength(uint16(len(packet) - header.IPv6MinimumSize))
			packet[0] = header.IPv6Version<<4 | packet[0]&0xf
			if message := header.ICMPv6(h.Payload()); h.NextHeader() == uint8(header.ICMPv6ProtocolNumber) && len(message) >= header.ICMPv6MinimumSize {
				message.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: message, Src: h.SourceAddress(), Dst: h.DestinationAddress()}))
			}
		}
		l.network.link.deliver(ethernet(gatewayMAC, guestMAC, tcpip.NetworkProtocolNumber(kind), packet))
		l.network.link.deliver(packet)
	})
}
