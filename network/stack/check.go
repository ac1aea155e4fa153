package stack

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/policy"
)

// ConfigOf returns a configuration with no more in it than what judges, for a mode and its rules, which are those of
// policy.ParseRule and policy.ParseDeny.
func ConfigOf(mode network.Mode, allow, deny []string) (Config, error) {
	opens, err := parse(allow, policy.ParseRule)
	if err != nil {
		return Config{}, err
	}
	closes, err := parse(deny, policy.ParseDeny)
	if err != nil {
		return Config{}, err
	}
	public := &policy.Policy{Host: HostAddresses, Local: IsLocal}
	switch mode {
	case network.ModePublic:
		for _, r := range slices.Concat(opens, closes) {
			if err := r.CheckPublic(); err != nil {
				return Config{}, err
			}
		}
		public.Allow, public.Deny = opens, closes
		return Config{Policy: public}, nil
	case network.ModeAllowlist, network.ModeAsk:
		c := Config{Allow: &policy.Allowlist{Public: public, Rules: opens, Deny: closes}}
		if mode == network.ModeAsk {
			c.Ask = func(Question) {}
		}
		return c, nil
	}
	return Config{}, fmt.Errorf("nothing judges a network of the mode %q", mode)
}

func parse(texts []string, one func(string) (policy.Rule, error)) (rules []policy.Rule, err error) {
	for _, text := range texts {
		r, err := one(text)
		if err != nil {
			return nil, err
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// Answer is what becomes of a connection.
type Answer struct {
	policy.Verdict
	Addr  netip.Addr // that the host dials, or that decided; invalid if no address was looked at
	Opens string     // the rule that would open it, if it is closed and one would
	Asks  bool       // the user is asked, as no rule opens or closes it
	Read  bool       // its requests are read, as those of Config.Read are
}

// Check tells what becomes of a guest's connection to a host, by name or by address, on a network of that configuration.
// It asks what the network itself asks, and dials nothing. The error is that the name could not be looked up.
func Check(ctx context.Context, c Config, host string, port uint16, proto policy.Proto) (Answer, error) {
	a, asks, err := check(ctx, c, host, port, proto)
	a.Asks = asks != nil
	if !a.Allow && err == nil {
		a.Opens = c.opens(a, host, port, proto)
	}
	a.Read = (a.Allow || a.Asks) && proto == policy.TCP && newReadPorts(c.Read).has(host, port)
	return a, err
}

// opens returns the rule that would open what an answer closes, if one would.
func (c *Config) opens(a Answer, host string, port uint16, proto policy.Proto) string {
	r, err := rulesOf(*c)
	if err != nil {
		return ""
	}
	e := Event{Proto: string(proto), Name: strings.ToLower(strings.TrimSuffix(host, ".")), Addr: netip.AddrPortFrom(a.Addr, port), Rule: a.Rule}
	if _, err := netip.ParseAddr(host); err == nil {
		e.Name = ""
	}
	return r.opens(e)
}

// check is Check. If the user is asked, it returns the rule that would open the destination as well.
func check(ctx context.Context, c Config, host string, port uint16, proto policy.Proto) (Answer, *policy.Rule, error) {
	if a, ok := c.checkHost(host, port, proto); ok {
		return a, nil, nil
	}
	r, err := rulesOf(c)
	if err != nil {
		return Answer{}, nil, err
	}
	asks := func(name string, a netip.AddrPort) *policy.Rule {
		if c.Ask == nil {
			return nil
		}
		return r.asks(name, a, proto)
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		addr = addr.Unmap()
		if ours(addr) {
			return Answer{Verdict: policy.Verdict{Rule: RuleGateway}, Addr: addr}, nil, nil
		}
		a := netip.AddrPortFrom(addr, port)
		return Answer{Verdict: r.judge("", a, proto), Addr: addr}, asks("", a), nil
	}
	if name := strings.ToLower(strings.TrimSuffix(host, ".")); isInternal(name) {
		return Answer{Verdict: policy.Verdict{Rule: RuleNoName}}, nil, nil
	}
	named := r.named(host, port, proto)
	if !named.Allow {
		return Answer{Verdict: named}, asks(host, netip.AddrPortFrom(netip.Addr{}, port)), nil
	}
	if r.allow != nil && proto == policy.TCP && c.Upstream.For(host, port) != nil {
		var found []netip.Addr
		if r.asksBehind(port) {
			found, _ = c.find(ctx, host) // the rules say what is then
		}
		return Answer{Verdict: r.behind(named, found, port)}, nil, nil
	}
	found, err := c.find(ctx, host)
	if err != nil {
		return Answer{}, nil, err
	}
	var first Answer
	for i, addr := range found {
		addr = addr.Unmap()
		v := r.dialed(netip.AddrPortFrom(addr, port), proto)
		if v.Allow && r.allow != nil {
			v = named // which says by which rule
		}
		if v.Allow {
			return Answer{Verdict: v, Addr: addr}, nil, nil
		}
		if i == 0 {
			first = Answer{Verdict: v, Addr: addr}
		}
	}
	return first, nil, nil
}

func (c *Config) find(ctx context.Context, host string) ([]netip.Addr, error) {
	resolver := c.Resolver
	if resolver == nil {
		resolver = &net.Resolver{PreferGo: true}
	}
	return resolver.LookupNetIP(ctx, "ip", strings.TrimSuffix(host, ".")+".")
}
