package stack

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/sourcery-zone/sandbox/network/secret"
	"golang.org/x/net/dns/dnsmessage"
)

// RuleUnread is the rule of what would pass the proxy by, of a host whose requests are to be read: datagrams at the port of
// its requests, so that clients take TCP for them, and echo requests, as there is no address that is known to be the host's.
const RuleUnread = "cannot-be-read"

// readPorts are the ports of names to which requests are read, whatever opens them.
type readPorts map[string][]uint16

func newReadPorts(hosts []secret.Host) readPorts {
	all := readPorts{}
	for _, h := range hosts {
		all[h.Name] = append(all[h.Name], h.Port)
	}
	return all
}

// of returns the ports of the host called name, also if it is below one of the domains, such as *.example.com.
func (p readPorts) of(name string) []uint16 {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	ports := p[name]
	for _, below, ok := strings.Cut(name, "."); ok; _, below, ok = strings.Cut(below, ".") {
		ports = append(ports[:len(ports):len(ports)], p["*."+below]...)
	}
	return ports
}

// has tells whether the requests to a port of the host called name are read.
func (p readPorts) has(name string, port uint16) bool { return slices.Contains(p.of(name), port) }

// names are those of hosts, without the domains.
func (p readPorts) names() (names []string) {
	for name := range p {
		if !strings.HasPrefix(name, "*.") {
			names = append(names, name)
		}
	}
	return names
}

// named tells whether a guest may speak to a port of a name. What the name leads to is judged when it is dialled.
func (r *rules) named(name string, port uint16, proto policy.Proto) policy.Verdict {
	switch {
	case proto == policy.UDP && r.read.has(name, port), proto == policy.ICMP && r.allow == nil:
		return policy.Verdict{Rule: RuleUnread}
	case r.allow == nil:
		return policy.Verdict{Allow: true, Rule: policy.RulePublic}
	}
	return r.allow.Name(name, port, proto)
}

// request tells whether a guest may send a request to a host whose requests are read.
func (r *rules) request(q policy.Request) policy.Verdict {
	if r.allow == nil {
		return policy.Verdict{Allow: true, Rule: policy.RulePublic} // as the address is that was dialled
	}
	return r.allow.Request(q)
}

// standIn has the address that stands for a name take the place of those that were found, so that connections to it are known
// to be the name's.
func (n *Network) standIn(a reply, e *Event) reply {
	if a.rcode != dnsmessage.RCodeSuccess {
		return a
	}
	a.addresses = nil
	if a.question.Type == dnsmessage.TypeA {
		addr, ok := n.table.address(a.question.host())
		if !ok {
			e.Allowed, e.Rule = false, RuleLimit
			return a.question.fail(dnsmessage.RCodeServerFailure)
		}
		a.addresses, a.ttl = []netip.Addr{addr}, nameTTL
	}
	return a
}
