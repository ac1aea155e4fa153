package stack

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// filter decides which frames are a guest's own, before anything else reads them.
type filter struct {
	mtu   int
	card  tcpip.LinkAddress // that the guest has, or takes on: see Config.Card
	guest tcpip.LinkAddress // of the frames that are taken; empty before the first one

	ipv6      bool
	addresses addresses6
}

const (
	broadcastMAC = tcpip.LinkAddress("\xff\xff\xff\xff\xff\xff")

	dhcpServerPort = 67
)

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// take tells whether a frame is to be read. The first one tells the guest's hardware address: a restored guest has
// kept the one that it had, whatever its card was made with. A fork takes on its own after that, and keeps it; any frame tells
// that it has, such as its kernel's announcement, which is not read.
func (f *filter) take(frame []byte) bool {
	if len(frame) < header.EthernetMinimumSize || len(frame) > header.EthernetMinimumSize+f.mtu {
		return false
	}
	to, from := tcpip.LinkAddress(frame[:6]), tcpip.LinkAddress(frame[6:12])
	if f.guest != "" && from != f.guest && from != f.card {
		return false
	}
	if from[0]&1 != 0 || from == gatewayMAC || from == "\x00\x00\x00\x00\x00\x00" {
		return false // no address of one card
	}
	packet, kind := frame[header.EthernetMinimumSize:], binary.BigEndian.Uint16(frame[12:])
	ok := false
	switch {
	case kind == uint16(header.IPv6ProtocolNumber):
		ok = f.ipv6 && f.takeIPv6(packet, to)
	case to != gatewayMAC && to != broadcastMAC:
	case kind == uint16(header.ARPProtocolNumber):
		ok = takeARP(packet, from)
	case kind == uint16(header.IPv4ProtocolNumber):
		ok = takeIPv4(packet, to == broadcastMAC)
	}
	if from == f.card || ok && f.guest == "" {
		f.guest = from
	}
	return ok
}

// takeARP takes what a guest asks or says about itself and the network's own addresses. It may not speak for others,
// and gets no answer for the rest of the network.
func takeARP(packet []byte, from tcpip.LinkAddress) bool {
	if len(packet) < header.ARPSize {
		return false
	}
	h := header.ARP(packet[:header.ARPSize])
	if !h.IsValid() || tcpip.LinkAddress(h.HardwareAddressSender()) != from {
		return false
	}
	sender := netip.AddrFrom4([4]byte(h.ProtocolAddressSender()))
	target := netip.AddrFrom4([4]byte(h.ProtocolAddressTarget()))
	// A client that looks whether anybody has its address has none yet (RFC 5227).
	return (sender == Guest || sender.IsUnspecified() && h.Op() == header.ARPRequest) && ours(target)
}

// takeIPv4 takes packets from the guest's address, and a DHCP client's from none.
func takeIPv4(packet []byte, toAll bool) bool {
	h := header.IPv4(packet)
	if !h.IsValid(len(packet)) {
		return false
	}
	from, to := netip.AddrFrom4(h.SourceAddress().As4()), netip.AddrFrom4(h.DestinationAddress().As4())
	fragment := h.More() || h.FragmentOffset() != 0
	udp := h.TransportProtocol() == header.UDPProtocolNumber
	if toAll || to == broadcast || from.IsUnspecified() {
		payload := packet[h.HeaderLength():h.TotalLength()]
		return udp && !fragment && to == broadcast && (from == Guest || from.IsUnspecified()) &&
			len(payload) >= header.UDPMinimumSize && header.UDP(payload).DestinationPort() == dhcpServerPort
	}
	if from != Guest || to.IsMulticast() {
		return false
	}
	switch h.TransportProtocol() {
	case header.TCPProtocolNumber:
		if fragment {
			return false // TCP fits its segments to the link: pieces of them serve only to hide the header
		}
		raiseSegments(h.Payload())
	case header.ICMPv4ProtocolNumber:
		// There is no narrower link behind the guest's card, and segments as small as the guest likes would take much memory.
		m := header.ICMPv4(h.Payload())
		return h.FragmentOffset() != 0 || len(m) < header.ICMPv4MinimumSize ||
			m.Type() != header.ICMPv4DstUnreachable || m.Code() != header.ICMPv4FragmentationNeeded
	}
	return true
}
