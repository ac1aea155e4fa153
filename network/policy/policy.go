package policy

import (
	"net/netip"
	"slices"
)

// Proto is a protocol above IP.
type Proto string

// The protocols that a guest can speak to others.
const (
	TCP  Proto = "tcp"
	UDP  Proto = "udp"
	ICMP Proto = "icmp"
)

// Policy opens the public Internet, and nothing of the host or of the networks around it but what rules open.
type Policy struct {
	// Host returns the addresses of the host. It is called for each decision, as they change while a guest runs.
	// Where they cannot be told, and without a function, nothing is open.
	Host func() ([]netip.Addr, error)
	// Local tells whether the host takes for itself what it would send to an address, as it may also do where none of its
	// interfaces has that address. It is called as Host is; nil: there are no such addresses.
	Local func(netip.Addr) (bool, error)
	// Upstream returns the addresses of proxies by which the host reaches the Internet: who speaks to one himself has it connect
	// to what is around it. nil: there are none.
	Upstream func() []netip.Addr
	// Allow are rules that open addresses around the host, and Deny rules that close some, which count more: see
	// Rule.CheckPublic.
	Allow, Deny []Rule
}

// Verdict is what a Policy says about a destination.
type Verdict struct {
	Allow bool
	Rule  string // what decides: one of the constants below, or the text of a rule

	// Requests says that not all of the host is open, but some requests of HTTP to it, each of which is judged for itself.
	Requests bool
}

// The rules of the public network.
const (
	RulePublic      = "public"       // open: an address of the Internet
	RuleHost        = "host-address" // an address of the host itself
	RuleHostUnknown = "host-unknown" // closed because nobody knows the host's addresses
	RuleUpstream    = "upstream-proxy"
	RuleLoopback    = "loopback"
	RulePrivate     = "private" // RFC 1918, unique local addresses, and what was used for them before
	RuleShared      = "shared"  // a provider's own network (RFC 6598)
	RuleSite        = "site"    // the networks around the host, which have public addresses in IPv6
	RuleLinkLocal   = "link-local"
	RuleMetadata    = "metadata" // gives credentials to whoever asks from within a cloud
	RuleMulticast   = "multicast"
	RuleBroadcast   = "broadcast"
	RuleUnspecified = "unspecified" // Linux takes it for the host itself
	RuleReserved    = "reserved"    // leads nowhere on the Internet, and perhaps somewhere on this network
)

// Address tells whether a may be dialled.
func (p *Policy) Address(a netip.AddrPort, proto Proto) Verdict {
	if v, ok := deniedAddress(p.Deny, a, proto); ok {
		return v
	}
	rule := p.base(a.Addr().Unmap().WithZone(""))
	if rule == "" {
		return Verdict{Allow: true, Rule: RulePublic}
	}
	if v := opened(p.Allow, p, a, func(t target) bool { return t.matchesPort(a.Port(), proto) }); v.Allow {
		return v
	}
	return Verdict{Rule: rule}
}

// base returns what closes addr without rules, or nothing.
func (p *Policy) base(addr netip.Addr) string {
	if rule := closed(addr); rule != "" {
		return rule
	}
	if p.Upstream != nil {
		proxies := p.Upstream()
		if slices.ContainsFunc(append(embedded(addr), addr), func(a netip.Addr) bool { return slices.Contains(proxies, a) }) {
			return RuleUpstream
		}
	}
	host, known := p.addresses()
	if !known {
		return RuleHostUnknown
	}
	switch local, err := p.isHost(host, addr); {
	case err != nil:
		return RuleHostUnknown
	case local:
		return RuleHost
	case site(host, addr).IsValid():
		return RuleSite
	}
	return ""
}

// addresses returns those of the host, if they are known. Asking for them is a system call or two.
func (p *Policy) addresses() (host []netip.Addr, known bool) {
	if p.Host == nil {
		return nil, false
	}
	host, err := p.Host()
	return host, err == nil
}

// siteBits is the length of the prefix that a site gets at most (RFC 6177). Which part of it this one has got, nobody tells
// its hosts.
const siteBits = 48

// site returns the prefix of the host's site if addr is in it. What is private in IPv4, as the other machines in a house or a
// company, have addresses of the Internet in IPv6.
func site(host []netip.Addr, addr netip.Addr) netip.Prefix {
	if !global6.Contains(addr) {
		return netip.Prefix{}
	}
	for _, h := range host {
		if h = h.WithZone(""); global6.Contains(h) {
			if site := netip.PrefixFrom(h, siteBits).Masked(); site.Contains(addr) {
				return site
			}
		}
	}
	return netip.Prefix{}
}

// isHost tells whether addr is one of the host's, or leads to one.
func (p *Policy) isHost(host []netip.Addr, addr netip.Addr) (bool, error) {
	for _, candidate := range append(embedded(addr), addr) {
		if slices.ContainsFunc(host, func(h netip.Addr) bool { return h.Unmap().WithZone("") == candidate }) {
			return true, nil
		}
		if p.Local == nil {
			continue
		}
		if local, err := p.Local(candidate); local || err != nil {
			return local, err
		}
	}
	return false, nil
}

// closed returns the rule that closes addr on every host, or nothing.
func closed(addr netip.Addr) string {
	if !addr.IsValid() {
		return RuleReserved
	}
	for _, c := range special {
		if c.prefix.Contains(addr) {
			return c.rule
		}
	}
	for _, inner := range embedded(addr) {
		if rule := closed(inner); rule != "" {
			return rule
		}
	}
	if addr.Is6() && !global6.Contains(addr) && !nat64.Contains(addr) {
		return RuleReserved
	}
	return ""
}

// embedded returns the addresses of IPv4 at which a host, a gateway or a tunnel may deliver what is sent to addr.
func embedded(addr netip.Addr) []netip.Addr {
	if !addr.Is6() {
		return nil
	}
	b := addr.As16()
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte(b[i : i+4])) }
	switch {
	case compatible.Contains(addr), translated.Contains(addr), nat64.Contains(addr):
		return []netip.Addr{at(12)}
	case sixToFour.Contains(addr):
		return []netip.Addr{at(2)}
	case teredo.Contains(addr):
		// The server's address, and the client's with its bits turned over (RFC 4380, section 4).
		client := at(12).As4()
		for i := range client {
			client[i] = ^client[i]
		}
		return []netip.Addr{at(4), netip.AddrFrom4(client)}
	case b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe: // ISATAP (RFC 5214, section 6.1)
		return []netip.Addr{at(12)}
	}
	return nil
}

// Prefixes with an address of IPv4 in them. That of IPv4-mapped addresses is missing, as Unmap takes it away.
var (
	compatible = netip.MustParsePrefix("::/96")           // RFC 4291, section 2.5.5.1
	translated = netip.MustParsePrefix("::ffff:0:0:0/96") // RFC 2765
	nat64      = netip.MustParsePrefix("64:ff9b::/96")    // RFC 6052
	sixToFour  = netip.MustParsePrefix("2002::/16")       // RFC 3056
	teredo     = netip.MustParsePrefix("2001::/32")       // RFC 4380
)

// global6 is all of IPv6 that is given out for the Internet.
var global6 = netip.MustParsePrefix("2000::/3")

// special are the addresses that are closed, with the reason; the first that contains an address counts.
var special = []struct {
	prefix netip.Prefix
	rule   string
}{
	{netip.MustParsePrefix("169.254.169.254/32"), RuleMetadata}, // most clouds
	{netip.MustParsePrefix("169.254.170.0/24"), RuleMetadata},   // containers of Amazon
	{netip.MustParsePrefix("100.100.100.200/32"), RuleMetadata}, // Alibaba
	{netip.MustParsePrefix("192.0.0.192/32"), RuleMetadata},     // Oracle
	{netip.MustParsePrefix("168.63.129.16/32"), RuleMetadata},   // Azure's, in the midst of public addresses
	{netip.MustParsePrefix("fd00:ec2::254/128"), RuleMetadata},  // Amazon
	{netip.MustParsePrefix("fd20:ce::254/128"), RuleMetadata},   // Google
	{netip.MustParsePrefix("fd00:c1::a9fe:a9fe/128"), RuleMetadata},

	{netip.MustParsePrefix("127.0.0.0/8"), RuleLoopback},
	{netip.MustParsePrefix("::1/128"), RuleLoopback},
	{netip.MustParsePrefix("0.0.0.0/8"), RuleUnspecified},
	{netip.MustParsePrefix("::/128"), RuleUnspecified},

	{netip.MustParsePrefix("10.0.0.0/8"), RulePrivate},
	{netip.MustParsePrefix("172.16.0.0/12"), RulePrivate},
	{netip.MustParsePrefix("192.168.0.0/16"), RulePrivate},
	{netip.MustParsePrefix("fc00::/7"), RulePrivate},
	{netip.MustParsePrefix("fec0::/10"), RulePrivate}, // site-local, until RFC 3879
	{netip.MustParsePrefix("100.64.0.0/10"), RuleShared},
	{netip.MustParsePrefix("169.254.0.0/16"), RuleLinkLocal},
	{netip.MustParsePrefix("fe80::/10"), RuleLinkLocal},

	{netip.MustParsePrefix("224.0.0.0/4"), RuleMulticast},
	{netip.MustParsePrefix("ff00::/8"), RuleMulticast},
	{netip.MustParsePrefix("255.255.255.255/32"), RuleBroadcast},

	{netip.MustParsePrefix("192.0.0.0/24"), RuleReserved},    // protocol assignments (RFC 6890)
	{netip.MustParsePrefix("192.0.2.0/24"), RuleReserved},    // documentation (RFC 5737)
	{netip.MustParsePrefix("192.88.99.0/24"), RuleReserved},  // relays of 6to4, until RFC 7526
	{netip.MustParsePrefix("198.18.0.0/15"), RuleReserved},   // benchmarks (RFC 2544)
	{netip.MustParsePrefix("198.51.100.0/24"), RuleReserved}, // documentation
	{netip.MustParsePrefix("203.0.113.0/24"), RuleReserved},  // documentation
	{netip.MustParsePrefix("240.0.0.0/4"), RuleReserved},

	// The prefix of RFC 8215 is each network's own: where in it an address of IPv4 stands, only its gateway knows.
	{netip.MustParsePrefix("64:ff9b:1::/48"), RuleReserved},
	// Anycast, which leads to this network's own gateway: PCP (RFC 7723) opens its ports, as 192.0.0.9 does.
	{netip.MustParsePrefix("2001:1::/32"), RuleReserved},
	{netip.MustParsePrefix("2001:2::/48"), RuleReserved},   // benchmarks (RFC 5180)
	{netip.MustParsePrefix("2001:10::/28"), RuleReserved},  // ORCHID (RFC 4843)
	{netip.MustParsePrefix("2001:20::/28"), RuleReserved},  // ORCHIDv2 (RFC 7343)
	{netip.MustParsePrefix("2001:db8::/32"), RuleReserved}, // documentation
	{netip.MustParsePrefix("3fff::/20"), RuleReserved},     // documentation (RFC 9637)
}
