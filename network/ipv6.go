package network

import (
	"net"
	"net/netip"
)

// HasIPv6 tells whether this machine has a way to the Internet over IPv6: a route, and an address of the Internet to send
// from. Unique local addresses alone are none: a router that has no more often announces a route as well.
func HasIPv6() bool {
	// Connecting a socket of UDP looks for a route and sends nothing. Nobody has this address of the Internet, so
	// that no route but one for all of it leads there.
	c, err := net.DialUDP("udp6", nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("[2000::1]:9")))
	if err != nil {
		return false
	}
	defer c.Close()
	from, ok := c.LocalAddr().(*net.UDPAddr)
	return ok && netip.MustParsePrefix("2000::/3").Contains(from.AddrPort().Addr())
}
