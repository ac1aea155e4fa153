package stack

import (
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const (
	// maxAddresses6 is how many addresses of IPv6 a guest may use at once: one of the link, one of the prefix, and those
	// that a system makes for privacy, one a day for a week.
	maxAddresses6 = 10
	// addressIdle is after how long without use another one may take an address's place.
	addressIdle = time.Minute
)

// addresses6 are those that a guest has used. It makes them itself, so that they are learned.
type addresses6 map[netip.Addr]time.Time // when it was last used

// use tells whether the guest may use an address now.
func (u addresses6) use(a netip.Addr, now time.Time) bool {
	if _, ok := u[a]; !ok && len(u) >= maxAddresses6 {
		oldest := a
		for other, last := range u {
			if now.Sub(last) >= addressIdle && (oldest == a || last.Before(u[oldest])) {
				oldest = other
			}
		}
		if oldest == a {
			return false
		}
		delete(u, oldest)
	}
	u[a] = now
	return true
}

// takeIPv6 takes packets from the guest's addresses, and what it asks its router for.
func (f *filter) takeIPv6(packet []byte, to tcpip.LinkAddress) bool {
	if s, ok := readSolicitation(packet); ok {
		return s.from.IsUnspecified() || f.addresses.use(s.from, time.Now())
	}
	h := header.IPv6(packet)
	if !h.IsValid(len(packet)) || to != gatewayMAC {
		return false
	}
	from, dst := netip.AddrFrom16(h.SourceAddress().As16()), netip.AddrFrom16(h.DestinationAddress().As16())
	if !isGuest6(from) || dst.IsMulticast() || linkLocal6.Contains(from) && !linkLocal6.Contains(dst) {
		return false
	}
	if dst.IsUnspecified() || dst.Is4In6() {
		return false // programs use them, and no system sends anything there
	}
	switch tcpip.TransportProtocolNumber(h.NextHeader()) {
	case header.TCPProtocolNumber:
		raiseSegments(h.Payload())
	case header.UDPProtocolNumber:
	case header.ICMPv6ProtocolNumber:
		// Of neighbor discovery, the rest is a router's; and the errors that a guest may report are of no use to a
		// stack with one neighbor.
		if message := h.Payload(); len(message) < header.ICMPv6EchoMinimumSize || header.ICMPv6(message).Type() != header.ICMPv6EchoRequest {
			return false
		}
	default:
		// Extension headers, with fragments among them, serve to hide the header behind them: what a guest has to say
		// fits the link.
		return false
	}
	return f.addresses.use(from, time.Now())
}
