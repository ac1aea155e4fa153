package stack

import (
	"encoding/binary"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// What a guest has of IPv6. Its own address it makes itself, within Prefix6.
var (
	Gateway6 = netip.MustParseAddr("fe80::2")
	// Prefix6 is one of unique local addresses. For hosts that have both, programs prefer IPv4 to it (RFC 6724), so that
	// IPv6 is for those that have nothing else.
	Prefix6 = netip.MustParsePrefix("fd5a:b3c1:9e4d:2::/64")
)

// Times of router advertisements. A guest that is restored elsewhere forgets its router after the lifetime, if nobody tells
// it before.
const (
	advertisementInterval = 10 * time.Minute
	routerLifetime        = 9000 * time.Second // the most that RFC 4861 has
	prefixLifetime        = 24 * time.Hour

	// advertisementRate and advertisementBurst bound what a guest can ask for, in a second and at once.
	advertisementRate  = 1
	advertisementBurst = 4
)

var (
	allNodes      = netip.IPv6LinkLocalAllNodes()
	allRouters    = netip.IPv6LinkLocalAllRouters()
	solicitedNode = netip.MustParseAddr("ff02::1:ff00:2") // at which Gateway6 is asked for
	linkLocal6    = netip.MustParsePrefix("fe80::/10")

	allNodesMAC = header.EthernetAddressFromMulticastIPv6Address(tcpipAddress(allNodes))
)

// solicitation is what a guest asks its router for: an advertisement, or its hardware address.
type solicitation struct {
	kind header.ICMPv6Type
	from netip.Addr
}

// readSolicitation reads one that is valid (RFC 4861, sections 6.1.1 and 7.1.1) and for the router. No other message of
// neighbor discovery is taken from a guest: it is no router, and has nobody to speak for. Options are not read, as the
// guest's hardware address is known.
func readSolicitation(packet []byte) (s solicitation, ok bool) {
	h := header.IPv6(packet)
	if !h.IsValid(len(packet)) || h.NextHeader() != uint8(header.ICMPv6ProtocolNumber) || h.HopLimit() != header.NDPHopLimit {
		return s, false
	}
	message := header.ICMPv6(h.Payload())
	if len(message) < header.ICMPv6MinimumSize || message.Code() != 0 || !hasChecksum(h, message) {
		return s, false
	}
	s.kind, s.from = message.Type(), netip.AddrFrom16(h.SourceAddress().As16())
	to := netip.AddrFrom16(h.DestinationAddress().As16())
	if s.from != netip.IPv6Unspecified() && !isGuest6(s.from) {
		return s, false
	}
	switch s.kind {
	case header.ICMPv6RouterSolicit:
		return s, (to == allRouters || to == Gateway6) && !Prefix6.Contains(s.from)
	case header.ICMPv6NeighborSolicit:
		if len(message) < header.ICMPv6NeighborSolicitMinimumSize {
			return s, false
		}
		target := netip.AddrFrom16(header.NDPNeighborSolicit(message.MessageBody()).TargetAddress().As16())
		return s, target == Gateway6 && (to == solicitedNode || to == Gateway6 && s.from != netip.IPv6Unspecified())
	}
	return s, false
}

// hasChecksum tells whether a message of ICMPv6 is whole.
func hasChecksum(h header.IPv6, message header.ICMPv6) bool {
	return message.Checksum() == header.ICMPv6Checksum(header.ICMPv6ChecksumParams{
		Header: message, Src: h.SourceAddress(), Dst: h.DestinationAddress(),
	})
}

// isGuest6 tells whether an address may be one of the guest's own.
func isGuest6(a netip.Addr) bool {
	return linkLocal6.Contains(a) && a != Gateway6 || Prefix6.Contains(a) && a != Prefix6.Addr()
}

// answerSolicitation answers a frame, and tells whether that was all that was to be done with it. The stack's own
// neighbor discovery would answer for every address.
func (n *Network) answerSolicitation(frame []byte) bool {
	if header.Ethernet(frame).Type() != header.IPv6ProtocolNumber {
		return false
	}
	s, ok := readSolicitation(frame[header.EthernetMinimumSize:])
	switch {
	case !ok:
		return false
	case s.kind == header.ICMPv6RouterSolicit:
		if n.advertisements.Allow() {
			n.advertise(routerLifetime, prefixLifetime)
		}
	default:
		n.answerNeighbor(s.from)
	}
	return true
}

// answerNeighbor tells the guest the router's hardware address.
func (n *Network) answerNeighbor(to netip.Addr) {
	message := make(header.ICMPv6, header.ICMPv6NeighborAdvertMinimumSize, header.ICMPv6NeighborAdvertMinimumSize+8)
	message.SetType(header.ICMPv6NeighborAdvert)
	a := header.NDPNeighborAdvert(message.MessageBody())
	a.SetRouterFlag(true)
	a.SetOverrideFlag(true)
	a.SetTargetAddress(tcpipAddress(Gateway6))
	mac := allNodesMAC
	if to == netip.IPv6Unspecified() { // it looks whether anybody has this address (RFC 4862)
		to = allNodes
	} else {
		a.SetSolicitedFlag(true)
		mac = *n.link.peer.Load()
	}
	n.sendNeighbor(mac, to, append(message, linkAddressOption(optionTarget)...))
}

// Options of neighbor discovery (RFC 4861, section 4.6). Their lengths are in units of 8 bytes.
const (
	optionSource = 1
	optionTarget = 2
	optionPrefix = 3
	optionMTU    = 5
)

// linkAddressOption is one with the router's hardware address.
func linkAddressOption(kind byte) []byte {
	return append([]byte{kind, 1}, gatewayMAC...)
}

// advertiseAlways tells the guest of its router, when it has sent something, and from time to time after that.
func (n *Network) advertiseAlways() {
	select {
	case <-n.met:
	case <-n.ctx.Done():
		return
	}
	again := time.NewTicker(advertisementInterval)
	defer again.Stop()
	for {
		n.advertise(routerLifetime, prefixLifetime)
		select {
		case <-again.C:
		case <-n.ctx.Done():
			return
		}
	}
}

// advertise tells the guest how long there is a router, and how long its addresses are good for.
func (n *Network) advertise(router, prefix time.Duration) {
	const (
		hopLimit    = 64
		makeAddress = 0x40 // the flag A; without L, the guest asks for no neighbors in the prefix, of which there are none
	)
	seconds := func(d time.Duration) uint32 { return uint32(d / time.Second) }
	m := make([]byte, header.ICMPv6HeaderSize, 64)
	m[0] = byte(header.ICMPv6RouterAdvert)
	m = append(m, hopLimit, 0)
	m = binary.BigEndian.AppendUint16(m, uint16(seconds(router)))
	m = append(m, make([]byte, 8)...) // times of neighbor discovery, which are the guest's own
	m = append(m, linkAddressOption(optionSource)...)
	m = append(m, optionMTU, 1, 0, 0)
	m = binary.BigEndian.AppendUint32(m, uint32(n.config.MTU))
	m = append(m, optionPrefix, 4, byte(Prefix6.Bits()), makeAddress)
	m = binary.BigEndian.AppendUint32(m, seconds(prefix)) // valid
	m = binary.BigEndian.AppendUint32(m, seconds(prefix)) // preferred
	m = append(m, 0, 0, 0, 0)
	m = append(m, Prefix6.Addr().AsSlice()...)
	n.sendNeighbor(allNodesMAC, allNodes, m)
}

// withdraw tells a guest that has an address from such a network elsewhere, as one that was restored may, that here is no way
// out for it, so that its programs lose no time.
func (n *Network) withdraw(frame []byte) {
	packet := header.IPv6(frame[header.EthernetMinimumSize:])
	if header.Ethernet(frame).Type() == header.IPv6ProtocolNumber && len(packet) >= header.IPv6MinimumSize &&
		header.Ethernet(frame).SourceAddress() == n.filter.guest && header.Ethernet(frame).DestinationAddress() == gatewayMAC &&
		Prefix6.Contains(netip.AddrFrom16(packet.SourceAddress().As16())) && n.advertisements.Allow() {
		n.advertise(0, 0)
	}
}

// sendNeighbor sends a message of neighbor discovery, whose checksum is missing.
func (n *Network) sendNeighbor(mac tcpip.LinkAddress, to netip.Addr, message header.ICMPv6) {
	packet := make(header.IPv6, header.IPv6MinimumSize, header.IPv6MinimumSize+len(message))
	packet.Encode(&header.IPv6Fields{
		PayloadLength: uint16(len(message)), TransportProtocol: header.ICMPv6ProtocolNumber, HopLimit: header.NDPHopLimit,
		SrcAddr: tcpipAddress(Gateway6), DstAddr: tcpipAddress(to),
	})
	message.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{
		Header: message, Src: packet.SourceAddress(), Dst: packet.DestinationAddress(),
	}))
	if err := n.stack.WritePacketToRemote(nic, mac, header.IPv6ProtocolNumber, buffer.MakeWithData(append(packet, message...))); err != nil {
		n.config.Logger.Debug("a message of neighbor discovery could not be sent", "err", err)
	}
}
