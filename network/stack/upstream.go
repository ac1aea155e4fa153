package stack

import (
	"context"
	"net"
	"net/netip"

	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/sourcery-zone/sandbox/network/upstream"
)

// upstreamFor returns the proxy by which the guest's connection to an open destination goes, and the host that the proxy
// is to connect to: a name, if the guest's address stands for one, and otherwise the address, which was judged. What is
// nearer than the Internet is not behind a proxy. In the public network, a name has none: it is for addresses to be judged,
// and where a proxy would find the name, nobody has.
func (n *Network) upstreamFor(name string, a netip.AddrPort, proto policy.Proto) (proxy *upstream.Proxy, host string) {
	r := n.rules.Load()
	switch {
	case proto != policy.TCP:
		return nil, ""
	case name != "":
		if host = name; r.allow == nil {
			return nil, ""
		}
	default:
		if host = a.Addr().String(); r.public.Address(a, proto).Rule != policy.RulePublic {
			return nil, ""
		}
	}
	return n.config.Upstream.For(host, a.Port()), host
}

// resolves tells whether the host is to find out what a name leads to, which where there are proxies it may not know.
func (c *Config) resolves(name string) bool {
	const httpsPort = 443
	return c.Upstream.For(name, httpPort) == nil && c.Upstream.For(name, httpsPort) == nil
}

// lookBehind finds out whether a name that is a proxy's to look up leads where rules close addresses. The proxy may find other
// addresses, so that one that is closed is enough.
func (n *Network) lookBehind(ctx context.Context, h *held) error {
	if h.name == "" {
		return nil // it was judged by its address
	}
	var found []netip.Addr
	if n.rules.Load().asksBehind(h.addr.Port()) {
		var err error
		if found, err = n.lookup(ctx, h.name); err != nil {
			n.config.Logger.Debug("nobody here knows where a name leads that a proxy is to look up", "name", h.name, "err", err)
		}
	}
	n.mu.Lock()
	h.behind, h.found = true, found
	n.judgeAgain(h)
	n.mu.Unlock()
	if closed := h.closed(); closed != nil {
		return closed
	}
	return nil
}

// asksBehind tells whether it matters where a name leads that is a proxy's to look up.
func (r *rules) asksBehind(port uint16) bool {
	return r.allow != nil && r.allow.DeniesAddresses(port, policy.TCP)
}

// behind judges such a name, which is open by the verdict, by the addresses that were found.
func (r *rules) behind(open policy.Verdict, found []netip.Addr, port uint16) policy.Verdict {
	if !r.asksBehind(port) {
		return open
	}
	if len(found) == 0 {
		return policy.Verdict{Rule: RuleAddressUnknown}
	}
	for _, addr := range found {
		if v, ok := r.allow.DeniedAddress(netip.AddrPortFrom(addr.Unmap(), port), policy.TCP); ok {
			return v
		}
	}
	return open
}

// dialUpstream connects by way of a proxy.
func (n *Network) dialUpstream(ctx context.Context, proxy *upstream.Proxy, host string, port uint16) (net.Conn, error) {
	c, err := proxy.Dial(ctx, host, port)
	if err != nil {
		n.proxyComplaint.Do(func() {
			n.config.Logger.Warn("no connection by way of the upstream proxy", "host", host, "port", port, "err", err)
		})
	}
	return c, err
}
