package stack

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/policy"
)

// ConfigOf returns a configuration with no more in it than what judges, for a mode and its rules.
func ConfigOf(mode network.Mode, rules []string) (Config, error) {
	public := &policy.Policy{Host: HostAddresses}
	switch mode {
	case network.ModePublic:
		return Config{Policy: public}, nil
	case network.ModeAllowlist:
		allow := &policy.Allowlist{Public: public}
		for _, text := range rules {
			rule, err := policy.ParseRule(text)
			if err != nil {
				return Config{}, err
			}
			allow.Rules = append(allow.Rules, rule)
		}
		return Config{Allow: allow}, nil
	}
	return Config{}, fmt.Errorf("nothing judges a network of the mode %q", mode)
}

// Answer is what becomes of a connection.
type Answer struct {
	policy.Verdict
	Addr netip.Addr // that the host dials, or that decided; invalid if no address was looked at
}

// Check tells what becomes of a guest's connection to a host, by name or by address, on a network of that configuration.
// It asks what the network itself asks, and dials nothing. The error is that the name could not be looked up.
func Check(ctx context.Context, c Config, host string, port uint16, proto policy.Proto) (Answer, error) {
	if a, ok := c.checkHost(host, port, proto); ok {
		return a, nil
	}
	dialed := func(a netip.AddrPort) policy.Verdict { return c.Policy.Address(a, proto) }
	direct := dialed
	if c.Allow != nil {
		dialed = func(a netip.AddrPort) policy.Verdict { return c.Allow.Dialed(a, proto) }
		direct = func(a netip.AddrPort) policy.Verdict { return c.Allow.Address(a, proto) }
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		addr = addr.Unmap()
		if ours(addr) {
			return Answer{policy.Verdict{Rule: RuleGateway}, addr}, nil
		}
		return Answer{direct(netip.AddrPortFrom(addr, port)), addr}, nil
	}
	if c.Allow != nil {
		v := c.Allow.Name(host, port, proto)
		if !v.Allow || proto == policy.TCP && c.Upstream.For(host, port) != nil {
			return Answer{Verdict: v}, nil
		}
	}
	resolver := c.Resolver
	if resolver == nil {
		resolver = &net.Resolver{PreferGo: true}
	}
	found, err := resolver.LookupNetIP(ctx, "ip", strings.TrimSuffix(host, ".")+".")
	if err != nil {
		return Answer{}, err
	}
	var first Answer
	for i, addr := range found {
		addr = addr.Unmap()
		v := dialed(netip.AddrPortFrom(addr, port))
		if v.Allow && c.Allow != nil {
			v = c.Allow.Name(host, port, proto) // which says by which rule
		}
		if v.Allow {
			return Answer{v, addr}, nil
		}
		if i == 0 {
			first = Answer{v, addr}
		}
	}
	return first, nil
}
