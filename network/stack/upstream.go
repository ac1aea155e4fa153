package stack

import (
	"context"
	"net"

	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/sourcery-zone/sandbox/network/upstream"
)

// upstreamFor returns the proxy by which the guest's connection to an open destination goes, and the host that the proxy
// is to connect to: a name, if the guest's address stands for one, and otherwise the address, which was judged. What is
// nearer than the Internet is not behind a proxy.
func (n *Network) upstreamFor(h *held) (proxy *upstream.Proxy, host string) {
	host = h.name
	if host == "" {
		host = h.addr.Addr().String()
	}
	if h.proto != policy.TCP || h.name == "" && n.rules.Load().public.Address(h.addr, h.proto).Rule != policy.RulePublic {
		return nil, ""
	}
	return n.config.Upstream.For(host, h.addr.Port()), host
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
