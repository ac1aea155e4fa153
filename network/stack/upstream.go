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
