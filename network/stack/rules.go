package stack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/sourcery-zone/sandbox/network/proxy"
)

// rules are what judges at a time.
type rules struct {
	public *policy.Policy
	allow  *policy.Allowlist // nil in the public network
	read   readPorts
}

func rulesOf(c Config) (*rules, error) {
	r := &rules{public: c.Policy, allow: c.Allow, read: newReadPorts(c.Read)}
	if c.Allow != nil {
		r.public = c.Allow.Public
	}
	if r.public == nil {
		return nil, errors.New("a network needs a policy")
	}
	if r.public.Upstream == nil && c.Upstream != nil {
		r.public.Upstream = c.Upstream.Addresses
	}
	for _, h := range c.Read {
		if _, err := netip.ParseAddr(h.Name); err == nil || isInternal(h.Name) {
			return nil, fmt.Errorf("the requests to %q cannot be read: it is not the name of a host of the Internet", h.Name)
		}
	}
	return r, nil
}

// with are the rules and one more of an allowlist, unless that is nil.
func (r *rules) with(rule *policy.Rule) *rules {
	if rule == nil || r.allow == nil {
		return r
	}
	return &rules{r.public, r.allow.With(*rule), r.read}
}

// opens returns the rule that would open what was refused; nothing if no rule would, or if it is one request of a host.
func (r *rules) opens(e Event) string {
	addr := e.Addr.Addr()
	switch {
	case e.Rule == policy.RuleNotAllowed, e.Rule == RuleNotAnswered:
		return r.opensUnlisted(e)
	case policy.IsAround(e.Rule) && addr.IsValid() && !policy.NameAddresses.Contains(addr) && e.Proto == string(policy.TCP):
		return policy.RuleFor(addr.String(), e.Addr.Port())
	}
	return ""
}

// opensUnlisted is that of what no rule of an allowlist opens or closes.
func (r *rules) opensUnlisted(e Event) string {
	if e.Request != "" {
		return ""
	}
	switch e.Proto {
	case string(policy.TCP):
		if rule := r.asks(e.Name, e.Addr, policy.TCP); rule != nil {
			return rule.String()
		}
	case string(policy.UDP):
		return net.JoinHostPort(cmp.Or(e.Name, e.Addr.Addr().String()), strconv.Itoa(int(e.Addr.Port()))) + "/udp"
	}
	return ""
}

// judge tells whether a guest may speak to a port of an address; or of a name for which the address stands, if there is one:
// then the address does not matter.
func (r *rules) judge(name string, a netip.AddrPort, proto policy.Proto) policy.Verdict {
	switch {
	case name != "":
		return r.named(name, a.Port(), proto)
	case r.allow == nil:
		return r.public.Address(a, proto)
	case policy.NameAddresses.Contains(a.Addr()):
		return policy.Verdict{Rule: RuleNoName}
	}
	return r.allow.Address(a, proto)
}

// dialed tells whether the host may dial an address.
func (r *rules) dialed(a netip.AddrPort, proto policy.Proto) policy.Verdict {
	if r.allow == nil {
		return r.public.Address(a, proto)
	}
	return r.allow.Dialed(a, proto)
}

// hosts are the names whose addresses are never forgotten.
func (r *rules) hosts() []string {
	names := r.read.names()
	if r.allow != nil {
		names = append(names, r.allow.Hosts()...)
	}
	return names
}

// requests tells whether requests of HTTP are read.
func (r *rules) requests() bool {
	return len(r.read) > 0 || r.allow != nil && r.allow.Requests()
}

var errNoProxy = errors.New("a network that reads requests needs a proxy")

// SetRules has a configuration's Policy or Allow judge from now on, which must be of the kind that judged before.
// Connections and flows that they do not open end, and questions that they answer are answered. The hosts whose requests are
// read stay the same, and so do the proxies.
func (n *Network) SetRules(c Config) error {
	c.Read, c.Upstream = n.config.Read, n.config.Upstream
	next, err := rulesOf(c)
	if err != nil {
		return err
	}
	if next.requests() && n.proxy.Load() == nil {
		return errNoProxy
	}
	if (next.allow == nil) != (n.rules.Load().allow == nil) {
		return errors.New("a network with an allowlist keeps one, and one without gets none")
	}
	n.rules.Store(next)
	n.table.pin(next.hosts())
	n.asked.judgeAgain(next)
	n.mu.Lock()
	defer n.mu.Unlock()
	for h := range n.held {
		n.judgeAgain(h)
	}
	return nil
}

// SetProxy gives a network without one what Config.Proxy is, so that SetRules takes rules for requests from then on.
func (n *Network) SetProxy(p *proxy.Proxy) error {
	if !n.proxy.CompareAndSwap(nil, p) {
		return errors.New("the network has a proxy already")
	}
	return nil
}

// held is what goes between the guest and another host, from before that is dialled.
type held struct {
	proto  policy.Proto
	name   string         // that the address stands for, if it does
	addr   netip.AddrPort // as the guest knows it
	once   *policy.Rule   // that opens nothing but this; or nil
	reads  bool           // its requests are judged one by one
	ctx    context.Context
	cancel context.CancelCauseFunc // with a ClosedError if rules close it
	to     netip.AddrPort          // to which the name has led; invalid before
	behind bool                    // the name is a proxy's to look up
	found  []netip.Addr            // to which it leads then, as far as the host knows
}

// hold notes a connection or flow until release is called. Rules that have come since it was judged close it.
func (n *Network) hold(what held) (h *held, release func()) {
	h = &what
	h.ctx, h.cancel = context.WithCancelCause(n.ctx)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.held[h] = struct{}{}
	n.judgeAgain(h)
	return h, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.held, h)
		h.cancel(nil)
	}
}

// leads notes where a name has led.
func (n *Network) leads(h *held, to netip.AddrPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h.to = to
	n.judgeAgain(h)
}

// judgeAgain ends what the present rules do not open. The caller holds the lock.
func (n *Network) judgeAgain(h *held) {
	if n.config.opensHost(h.addr, h.proto) {
		return
	}
	r := n.rules.Load().with(h.once)
	v := r.judge(h.name, h.addr, h.proto)
	if v.Requests && !h.reads {
		v.Allow = false
	}
	if v.Allow && h.to.IsValid() {
		v = r.dialed(h.to, h.proto)
	}
	if v.Allow && h.behind {
		v = r.behind(v, h.found, h.addr.Port())
	}
	if !v.Allow {
		h.cancel(&ClosedError{h.addr, v.Rule})
	}
}

// closed returns why rules have ended it, or nil.
func (h *held) closed() *ClosedError {
	closed, _ := errors.AsType[*ClosedError](context.Cause(h.ctx))
	return closed
}

// dialAddress dials what the present rules open, and one more.
func (n *Network) dialAddress(ctx context.Context, proto policy.Proto, a netip.AddrPort, once *policy.Rule) (net.Conn, error) {
	if n.config.Dial != nil {
		return n.config.Dial(ctx, proto, a)
	}
	return DialPolicy(func(a netip.AddrPort, proto policy.Proto) policy.Verdict {
		return n.rules.Load().with(once).dialed(a, proto)
	})(ctx, proto, a)
}
