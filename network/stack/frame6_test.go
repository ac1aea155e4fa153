package stack

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/network/policy"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

var (
	guest6     = netip.MustParseAddr("fd5a:b3c1:9e4d:2:5054:ff:fe01:203")
	guestLink6 = netip.MustParseAddr("fe80::5054:ff:fe01:203")
	public6    = netip.MustParseAddr("2606:2800:220:1::14")
)

func withIPv6(c *Config) { c.IPv6 = true }

func ip6Packet(from, to netip.Addr, proto tcpip.TransportProtocolNumber, hops uint8, payload []byte) header.IPv6 {
	h := make(header.IPv6, header.IPv6MinimumSize)
	h.Encode(&header.IPv6Fields{
		PayloadLength: uint16(len(payload)), TransportProtocol: proto, HopLimit: hops, SrcAddr: tcpipAddress(from), DstAddr: tcpipAddress(to),
	})
	return append(h, payload...)
}

func tcpSegment6(from, to netip.AddrPort, flags header.TCPFlags) []byte {
	h := make(header.TCP, header.TCPMinimumSize)
	h.Encode(&header.TCPFields{SrcPort: from.Port(), DstPort: to.Port(), SeqNum: 1, AckNum: 7, DataOffset: header.TCPMinimumSize, Flags: flags, WindowSize: 65535})
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, tcpipAddress(from.Addr()), tcpipAddress(to.Addr()), uint16(len(h)))
	h.SetChecksum(^h.CalculateChecksum(sum))
	return ip6Packet(from.Addr(), to.Addr(), header.TCPProtocolNumber, 64, h)
}

func udpDatagram6(from, to netip.AddrPort, payload []byte) header.IPv6 {
	h := make(header.UDP, header.UDPMinimumSize)
	h.Encode(&header.UDPFields{SrcPort: from.Port(), DstPort: to.Port(), Length: uint16(len(h) + len(payload))})
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, tcpipAddress(from.Addr()), tcpipAddress(to.Addr()), uint16(len(h)+len(payload)))
	h.SetChecksum(^h.CalculateChecksum(checksum.Checksum(payload, sum)))
	return ip6Packet(from.Addr(), to.Addr(), header.UDPProtocolNumber, 64, append(h, payload...))
}

// icmp6 is a message of ICMPv6, with what follows its checksum.
func icmp6(from, to netip.Addr, hops uint8, kind header.ICMPv6Type, body ...byte) []byte {
	m := header.ICMPv6(append([]byte{byte(kind), 0, 0, 0}, body...))
	m.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: m, Src: tcpipAddress(from), Dst: tcpipAddress(to)}))
	return ip6Packet(from, to, header.ICMPv6ProtocolNumber, hops, m)
}

func echoRequest6(to netip.Addr) []byte {
	return icmp6(guest6, to, 64, header.ICMPv6EchoRequest, 0, 1, 0, 1)
}

func neighborSolicitation(from, to, target netip.Addr) []byte {
	return icmp6(from, to, 255, header.ICMPv6NeighborSolicit, append(make([]byte, 4), target.AsSlice()...)...)
}

func routerSolicitation(from netip.Addr) []byte {
	return icmp6(from, allRouters, 255, header.ICMPv6RouterSolicit, 0, 0, 0, 0)
}

// newBareLab6 starts a network with IPv6 and takes the advertisement that it begins with.
func newBareLab6(t testing.TB, options ...option) *lab {
	t.Helper()
	l := newBareLab(t, append(options, withIPv6)...)
	for !l.advertised(l.barrier()) {
	}
	return l
}

// advertised tells whether a router advertisement is among frames.
func (l *lab) advertised(frames [][]byte) bool {
	for _, f := range frames {
		if what(f) == "ICMPv6 134/0" {
			return true
		}
	}
	return false
}

const (
	prohibited6  = "ICMPv6 1/1"
	unreachable6 = "ICMPv6 1/4"
)

func TestRefusalsOnTheWireOverIPv6(t *testing.T) {
	host := func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("2a00:1:2:3::7")}, nil }
	for _, c := range []struct {
		to, rule       string
		tcp, udp, icmp string
	}{
		{"[::1]:81", policy.RuleLoopback, prohibited6, prohibited6, prohibited6},
		{"[::127.0.0.1]:81", policy.RuleLoopback, prohibited6, prohibited6, prohibited6},
		{"[64:ff9b::7f00:1]:81", policy.RuleLoopback, prohibited6, prohibited6, prohibited6},
		{"[64:ff9b::a9fe:a9fe]:80", policy.RuleMetadata, prohibited6, prohibited6, prohibited6},
		{"[2002:7f00:1::]:81", policy.RuleLoopback, prohibited6, prohibited6, prohibited6},
		{"[fe80::1]:81", policy.RuleLinkLocal, prohibited6, prohibited6, prohibited6},
		{"[fc00::1]:81", policy.RulePrivate, prohibited6, prohibited6, prohibited6},
		{"[fd12::1]:81", policy.RulePrivate, prohibited6, prohibited6, prohibited6},
		{"[fd00:ec2::254]:81", policy.RuleMetadata, prohibited6, prohibited6, prohibited6},
		{"[fd5a:b3c1:9e4d:2::77]:81", policy.RulePrivate, prohibited6, prohibited6, prohibited6},
		{"[2a00:1:2:3::7]:81", policy.RuleHost, prohibited6, prohibited6, prohibited6},
		{"[2a00:1:2:3::8]:81", policy.RuleSite, prohibited6, prohibited6, prohibited6},
		{"[2a00:1:2:ffff::1]:81", policy.RuleSite, prohibited6, prohibited6, prohibited6},
		{"[2001:db8::1]:81", policy.RuleReserved, prohibited6, prohibited6, prohibited6},
		{"[fe80::2]:22", RuleGateway, reset, unreachable6, "ICMPv6 129/0"},
	} {
		l := newBareLab6(t, func(c *Config) { c.Policy = &policy.Policy{Host: host} })
		to := netip.MustParseAddrPort(c.to)
		from := netip.AddrPortFrom(guest6, 4000)
		l.refuses(to, c.rule,
			closedPacket{tcpSegment6(from, to, header.TCPFlagSyn), c.tcp},
			closedPacket{udpDatagram6(from, to, []byte("x")), c.udp},
			closedPacket{echoRequest6(to.Addr()), c.icmp},
		)
	}
}

func TestAnAllowlistIsClosedForAddressesOfIPv6(t *testing.T) {
	l := newBareLab6(t, allow(t, "good.example:*", "0.0.0.0/0:443"))
	from, to := netip.AddrPortFrom(guest6, 4000), netip.AddrPortFrom(public6, 443)
	for _, packet := range [][]byte{tcpSegment6(from, to, header.TCPFlagSyn), udpDatagram6(from, to, nil), echoRequest6(public6)} {
		l.sendIP(packet)
		if answers := l.barrier(); len(answers) != 1 || what(answers[0]) != prohibited6 {
			t.Errorf("protocol %d gets %d answers", header.IPv6(packet).NextHeader(), len(answers))
		}
	}
	if _, dialed := l.seen(); len(dialed) > 0 {
		t.Errorf("the host dialled %v", dialed)
	}
}

func TestASegmentOfAConnectionFromBeforeIsResetOverIPv6(t *testing.T) {
	l := newBareLab6(t)
	l.sendIP(tcpSegment6(netip.AddrPortFrom(guest6, 4000), netip.AddrPortFrom(public6, 443), header.TCPFlagAck|header.TCPFlagPsh))
	answers := l.barrier()
	if len(answers) != 1 || header.TCP(header.IPv6(answers[0][header.EthernetMinimumSize:]).Payload()).Flags()&header.TCPFlagRst == 0 {
		t.Errorf("it gets %d answers", len(answers))
	}
}

// notTheGuests6 are frames that are not to be read, by what is wrong with them.
func notTheGuests6() map[string][]byte {
	to := netip.AddrPortFrom(public6, 80)
	syn := func(from netip.Addr) []byte {
		return tcpSegment6(netip.AddrPortFrom(from, 4000), to, header.TCPFlagSyn)
	}
	to6 := func(to string) []byte {
		return tcpSegment6(netip.AddrPortFrom(guest6, 4000), netip.MustParseAddrPort(to), header.TCPFlagSyn)
	}
	// behind is a segment with an extension header before it.
	behind := func(kind uint8) []byte {
		extension := make([]byte, 8)
		extension[0] = uint8(header.TCPProtocolNumber)
		return ip6Packet(guest6, public6, tcpip.TransportProtocolNumber(kind), 64, append(extension, syn(guest6)[header.IPv6MinimumSize:]...))
	}
	long := header.IPv6(syn(guest6))
	long.SetPayloadLength(2000)
	wrongVersion := header.IPv6(syn(guest6))
	wrongVersion[0] = 0x40
	frame := func(packet []byte) []byte { return ethernet(gatewayMAC, guestMAC, header.IPv6ProtocolNumber, packet) }
	multicast := func(a netip.Addr, packet []byte) []byte {
		return ethernet(header.EthernetAddressFromMulticastIPv6Address(tcpipAddress(a)), guestMAC, header.IPv6ProtocolNumber, packet)
	}
	mdns := netip.MustParseAddr("ff02::fb")
	reports := netip.MustParseAddr("ff02::16")
	advert := append([]byte{64, 0, 0xff, 0xff}, make([]byte, 8)...)
	redirect := append(make([]byte, 4), append(guest6.AsSlice(), public6.AsSlice()...)...)
	badSum := neighborSolicitation(guestLink6, Gateway6, Gateway6)
	badSum[header.IPv6MinimumSize+2] ^= 1
	return map[string][]byte{
		"another MAC":                        ethernet(gatewayMAC, "\x52\x54\x00\x09\x09\x09", header.IPv6ProtocolNumber, syn(guest6)),
		"to another MAC":                     ethernet("\x52\x54\x00\x09\x09\x09", guestMAC, header.IPv6ProtocolNumber, syn(guest6)),
		"to all":                             ethernet(broadcastMAC, guestMAC, header.IPv6ProtocolNumber, syn(guest6)),
		"to a multicast MAC":                 multicast(allRouters, syn(guest6)),
		"a public address":                   frame(syn(public6)),
		"another prefix":                     frame(syn(netip.MustParseAddr("fd5a:b3c1:9e4d:3::1"))),
		"the prefix itself":                  frame(syn(Prefix6.Addr())),
		"no address":                         frame(syn(netip.IPv6Unspecified())),
		"the loopback":                       frame(syn(netip.IPv6Loopback())),
		"an address of IPv4":                 frame(syn(netip.MustParseAddr("::ffff:10.0.2.15"))),
		"a multicast address":                frame(syn(mdns)),
		"the gateway's address":              frame(tcpSegment6(netip.AddrPortFrom(Gateway6, 1), netip.MustParseAddrPort("[fe80::2]:22"), header.TCPFlagSyn)),
		"to no address":                      frame(to6("[::]:80")),
		"to a loopback in IPv4":              frame(to6("[::ffff:127.0.0.1]:80")),
		"to the gateway in IPv4":             frame(to6("[::ffff:10.0.2.2]:80")),
		"to an address of IPv4":              frame(to6("[::ffff:93.184.215.14]:80")),
		"the link's address to the Internet": frame(syn(guestLink6)),
		"hop-by-hop options":                 frame(behind(0)),
		"a routing header":                   frame(behind(43)),
		"a fragment":                         frame(behind(44)),
		"destination options":                frame(behind(60)),
		"an authentication header":           frame(behind(51)),
		"a mobility header":                  frame(behind(135)),
		"no next header":                     frame(behind(59)),
		"IPv4 in IPv6":                       frame(behind(4)),
		"SCTP":                               frame(behind(132)),
		"longer than its frame":              frame(long),
		"of another version":                 frame(wrongVersion),
		"half a header":                      frame(syn(guest6)[:30]),
		"mDNS":                               multicast(mdns, udpDatagram6(netip.AddrPortFrom(guestLink6, 5353), netip.AddrPortFrom(mdns, 5353), nil)),
		"mDNS to the gateway's MAC":          frame(udpDatagram6(netip.AddrPortFrom(guest6, 5353), netip.AddrPortFrom(mdns, 5353), nil)),
		"DHCPv6":                             multicast(netip.MustParseAddr("ff02::1:2"), udpDatagram6(netip.AddrPortFrom(guestLink6, 546), netip.MustParseAddrPort("[ff02::1:2]:547"), nil)),
		"a multicast listener's report":      multicast(reports, icmp6(guestLink6, reports, 1, header.ICMPv6MulticastListenerV2Report, 0, 0, 0, 0)),
		"a ping to all nodes":                multicast(allNodes, icmp6(guestLink6, allNodes, 64, header.ICMPv6EchoRequest, 0, 1, 0, 1)),
		"a router advertisement to all":      multicast(allNodes, icmp6(guestLink6, allNodes, 255, header.ICMPv6RouterAdvert, advert...)),
		"a router advertisement":             frame(icmp6(guestLink6, Gateway6, 255, header.ICMPv6RouterAdvert, advert...)),
		"a redirect":                         frame(icmp6(guestLink6, Gateway6, 255, header.ICMPv6RedirectMsg, redirect...)),
		"a neighbor advertisement":           frame(icmp6(guestLink6, Gateway6, 255, header.ICMPv6NeighborAdvert, append(make([]byte, 4), Gateway6.AsSlice()...)...)),
		"a question for another's address":   multicast(netip.MustParseAddr("ff02::1:ff00:9"), neighborSolicitation(guestLink6, netip.MustParseAddr("ff02::1:ff00:9"), netip.MustParseAddr("fe80::9"))),
		"a question for its own address":     multicast(netip.MustParseAddr("ff02::1:ff01:203"), neighborSolicitation(netip.IPv6Unspecified(), netip.MustParseAddr("ff02::1:ff01:203"), guest6)),
		"a question from the gateway":        frame(neighborSolicitation(Gateway6, solicitedNode, Gateway6)),
		"a question from elsewhere":          frame(neighborSolicitation(public6, Gateway6, Gateway6)),
		"a question from afar":               frame(icmp6(guestLink6, Gateway6, 64, header.ICMPv6NeighborSolicit, append(make([]byte, 4), Gateway6.AsSlice()...)...)),
		"a question with a wrong checksum":   frame(badSum),
		"half a question":                    frame(icmp6(guestLink6, Gateway6, 255, header.ICMPv6NeighborSolicit, 0, 0, 0, 0)),
		"a router solicitation from afar":    multicast(allRouters, icmp6(guestLink6, allRouters, 64, header.ICMPv6RouterSolicit, 0, 0, 0, 0)),
		"an error":                           frame(icmp6(guest6, public6, 64, header.ICMPv6DstUnreachable, make([]byte, 60)...)),
		"too big":                            frame(icmp6(guest6, public6, 64, header.ICMPv6PacketTooBig, make([]byte, 60)...)),
		"an echo reply":                      frame(icmp6(guest6, public6, 64, header.ICMPv6EchoReply, 0, 1, 0, 1)),
		"a node information query":           frame(icmp6(guest6, Gateway6, 64, 139, make([]byte, 28)...)),
		"half an ICMPv6 header":              frame(ip6Packet(guest6, public6, header.ICMPv6ProtocolNumber, 64, []byte{128, 0})),
	}
}

func TestFramesOfIPv6ThatAreNotTheGuestsOwnAreDropped(t *testing.T) {
	l := newBareLab6(t)
	l.drops(notTheGuests6())
	if events, dialed := l.seen(); len(dialed)+len(events) > 0 {
		t.Errorf("the host dialled %v, and there were %v", dialed, events)
	}
}

func TestWithoutIPv6AllOfItIsDropped(t *testing.T) {
	l := newBareLab(t)
	if before := l.barrier(); len(before) > 0 {
		t.Errorf("the network begins with %s", what(before[0]))
	}
	frames := notTheGuests6()
	for name, packet := range map[string][]byte{
		"a router solicitation":   routerSolicitation(guestLink6),
		"a neighbor solicitation": neighborSolicitation(guestLink6, Gateway6, Gateway6),
		"a ping":                  icmp6(guestLink6, Gateway6, 64, header.ICMPv6EchoRequest, 0, 1, 0, 1),
	} {
		frames[name] = ethernet(gatewayMAC, guestMAC, header.IPv6ProtocolNumber, packet)
	}
	for name, frame := range frames {
		if from := frame[header.EthernetMinimumSize+8:]; len(frame) >= header.EthernetMinimumSize+header.IPv6MinimumSize && Prefix6.Contains(netip.AddrFrom16([16]byte(from[:16]))) {
			delete(frames, name) // see TestAGuestThatBringsAnAddressIsToldThatThereIsNoIPv6
		}
	}
	l.drops(frames)
}

// lifetimes returns for how long an advertisement says that there are a router, and addresses of its prefix.
func lifetimes(frame []byte) (router, prefix time.Duration) {
	m := header.IPv6(frame[header.EthernetMinimumSize:]).Payload()
	return time.Duration(binary.BigEndian.Uint16(m[6:])) * time.Second, time.Duration(binary.BigEndian.Uint32(m[len(m)-28:])) * time.Second
}

func TestAGuestThatBringsAnAddressIsToldThatThereIsNoIPv6(t *testing.T) {
	l := newBareLab(t)
	l.barrier()
	syn := tcpSegment6(netip.AddrPortFrom(guest6, 4000), netip.AddrPortFrom(public6, 80), header.TCPFlagSyn)
	told := 0
	for range 100 {
		l.sendIP(syn)
		for _, f := range l.barrier() {
			told++
			if what(f) != "ICMPv6 134/0" {
				t.Fatalf("it gets %s", what(f))
			}
			if router, prefix := lifetimes(f); router != 0 || prefix != 0 {
				t.Errorf("there is said to be a router for %s, and addresses for %s", router, prefix)
			}
		}
	}
	if told == 0 || told > 50 {
		t.Errorf("it is told %d times", told)
	}
}

func TestTheRouterIsToldAndFound(t *testing.T) {
	l := newBareLab6(t)
	for name, c := range map[string]struct {
		packet   []byte
		want, to string
	}{
		"its router":                  {routerSolicitation(guestLink6), "ICMPv6 134/0", "ff02::1"},
		"its router, from no address": {routerSolicitation(netip.IPv6Unspecified()), "ICMPv6 134/0", "ff02::1"},
		"the router's card":           {neighborSolicitation(guestLink6, solicitedNode, Gateway6), "ICMPv6 136/0", guestLink6.String()},
		"the router's card again":     {neighborSolicitation(guest6, Gateway6, Gateway6), "ICMPv6 136/0", guest6.String()},
		"whether fe80::2 is free":     {neighborSolicitation(netip.IPv6Unspecified(), solicitedNode, Gateway6), "ICMPv6 136/0", "ff02::1"},
	} {
		l.sendIP(c.packet)
		answers := l.barrier()
		if len(answers) != 1 || what(answers[0]) != c.want {
			t.Errorf("asked for %s, it gets %d answers", name, len(answers))
			continue
		}
		p := header.IPv6(answers[0][header.EthernetMinimumSize:])
		if to := netip.AddrFrom16(p.DestinationAddress().As16()); to.String() != c.to || p.HopLimit() != 255 || p.SourceAddress() != tcpipAddress(Gateway6) {
			t.Errorf("asked for %s, it answers %s from %s", name, to, p.SourceAddress())
		}
		if router, _ := lifetimes(answers[0]); c.want == "ICMPv6 134/0" && router != routerLifetime {
			t.Errorf("asked for %s, there is one for %s", name, router)
		}
	}
}

func TestAdvertisementsAreBounded(t *testing.T) {
	l := newBareLab6(t)
	told, began := 0, time.Now()
	for range 500 {
		l.sendIP(routerSolicitation(guestLink6))
		told += len(l.barrier())
	}
	if most := advertisementBurst + int(time.Since(began)/time.Second) + 1; told == 0 || told > most {
		t.Errorf("500 solicitations are answered %d times, want at most %d", told, most)
	}
}

func TestAGuestHasSomeAddressesOfIPv6(t *testing.T) {
	used, now := addresses6{}, time.Now()
	address := func(i int) netip.Addr {
		b := Prefix6.Addr().As16()
		b[15] = byte(i + 1)
		return netip.AddrFrom16(b)
	}
	for i := range maxAddresses6 {
		if !used.use(address(i), now.Add(time.Duration(i))) {
			t.Fatalf("it may have %d only", i)
		}
	}
	if used.use(address(200), now) {
		t.Error("it may have more than that")
	}
	if !used.use(address(0), now.Add(addressIdle)) || !used.use(address(200), now.Add(addressIdle+1)) {
		t.Error("another one cannot take the place of one that is not used any more")
	}
	if _, ok := used[address(1)]; ok || len(used) != maxAddresses6 {
		t.Errorf("it has %v", used)
	}
	l := newBareLab6(t)
	refused := 0
	for i := range 200 {
		l.sendIP(tcpSegment6(netip.AddrPortFrom(address(i), 4000), netip.MustParseAddrPort("[fd12::1]:81"), header.TCPFlagSyn))
		refused += len(l.barrier())
	}
	if refused > maxAddresses6 {
		t.Errorf("of 200 addresses, %d are answered", refused)
	}
}
