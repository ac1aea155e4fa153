package stack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/network/policy"
	"golang.org/x/net/dns/dnsmessage"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// nameTTL is how long a guest may keep a name's address, in seconds. It stays the same for longer.
	nameTTL = 60
	// maxAddresses and leastDial bound what is tried of a name's addresses, and how long each.
	maxAddresses = 16
	leastDial    = 2 * time.Second
)

// What a guest may say by names alone, to the servers of a domain whose names are all open: spellingBurst bytes, and
// spellingRate in a second after that. Names that exist and are known count once.
const (
	spellingBurst = 8 << 10
	spellingRate  = 16
)

const spellingWhy = "too many names were looked up that were not known before; try again in a minute"

// mayAsk tells whether somebody may be asked for a name that is open, by what the guest may say with names.
func (n *Network) mayAsk(name string) bool {
	return n.table.has(name) || n.spelling.AllowN(time.Now(), len(name))
}

// notAllowedWhy is what a guest is told of a name that no rule opens.
const notAllowedWhy = "no rule of the sandbox's allowlist opens this name"

// judge tells whether a guest may speak to an address, and which name the address stands for, if any.
func (n *Network) judge(a netip.AddrPort, proto policy.Proto) (name string, v policy.Verdict) {
	if n.config.opensHost(a, proto) {
		return "", policy.Verdict{Allow: true, Rule: RuleHostPort}
	}
	if policy.NameAddresses.Contains(a.Addr()) {
		name = n.table.name(a.Addr())
	}
	return name, n.rules.Load().judge(name, a, proto)
}

// judgePacket judges the destination of a packet, and tells the guest and the log if it is closed.
func (n *Network) judgePacket(a netip.AddrPort, proto policy.Proto, pkt *netstack.PacketBuffer) (name string, v policy.Verdict) {
	if name, v = n.judge(a, proto); !v.Allow {
		n.refuse(a, proto, pkt, name, v.Rule)
	}
	return name, v
}

// refuse tells the guest and the log of a packet that its destination is closed.
func (n *Network) refuse(a netip.AddrPort, proto policy.Proto, pkt *netstack.PacketBuffer, name, rule string) {
	n.refused(proto, a, name, rule)
	n.reject(pkt, netstack.RejectIPv4WithICMPAdminProhibited)
}

// answerAllowed answers a question about a name by the address that stands for it. There is nothing else to be had from
// this server: what other records say of a name leads around the rules, or is of no use without other names.
func (n *Network) answerAllowed(ctx context.Context, list *policy.Allowlist, q question, e *Event) reply {
	v := list.Lookup(q.Name.String()) // as it was written: it may hold anything
	e.Allowed, e.Rule = v.Allow, v.Rule
	if !v.Allow {
		if v.Rule == policy.RuleBadName || !n.standsIn(q.host()) {
			return q.block(notAllowedWhy)
		}
		e.Allowed, e.Rule = true, RuleNotLookedUp
	}
	if q.Type != dnsmessage.TypeA && q.Type != dnsmessage.TypeAAAA {
		return q.fail(dnsmessage.RCodeSuccess)
	}
	// An open name is asked for even if its address is known, so that one that does not exist is not there.
	if v.Allow && !n.mayAsk(q.host()) {
		e.Allowed, e.Rule = false, RuleSpelling
		return q.block(spellingWhy)
	}
	if v.Allow && n.config.resolves(q.host()) {
		if _, err := n.lookup(ctx, q.host()); err != nil {
			return n.lookupFailed(ctx, q, err)
		}
	}
	a := q.fail(dnsmessage.RCodeSuccess)
	if q.Type == dnsmessage.TypeAAAA {
		return a
	}
	addr, ok := n.table.address(q.host())
	if !ok {
		e.Allowed, e.Rule = false, RuleLimit
		return q.fail(dnsmessage.RCodeServerFailure)
	}
	a.addresses, a.ttl = []netip.Addr{addr}, nameTTL
	return a
}

// notOfTheInternet are domains with no hosts of the Internet (RFC 6761, RFC 6762, RFC 7686), or with addresses for names.
var notOfTheInternet = []string{"arpa", "invalid", "local", "localhost", "onion"}

// standsIn tells whether a name that no rule opens has an address all the same. What a program does not find, it looks
// for elsewhere, and may rightly so: a short name in the search domains one after the other, and then as it is.
func (n *Network) standsIn(host string) bool {
	within := func(domain string) bool { return isWithin(host, domain) }
	return strings.Contains(host, ".") && !slices.ContainsFunc(notOfTheInternet, within) &&
		!slices.ContainsFunc(n.config.Search, func(domain string) bool { return within(strings.ToLower(strings.Trim(domain, "."))) })
}

// dial connects to what a guest named: an address, or a name, of which one address after the other is tried.
func (n *Network) dial(ctx context.Context, h *held) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	stop := context.AfterFunc(h.ctx, cancel)
	defer stop()
	c, err := n.dialHeld(ctx, h)
	if closed := h.closed(); closed != nil {
		if err == nil {
			c.Close()
		}
		return nil, closed
	}
	return c, err
}

func (n *Network) dialHeld(ctx context.Context, h *held) (net.Conn, error) {
	if n.config.opensHost(h.addr, h.proto) {
		return dialHost(ctx, h.addr.Port())
	}
	if proxy, host := n.upstreamFor(h.name, h.addr, h.proto); proxy != nil {
		if err := n.lookBehind(ctx, h); err != nil {
			return nil, err
		}
		return n.dialUpstream(ctx, proxy, host, h.addr.Port())
	}
	if h.name == "" {
		return n.dialAddress(ctx, h.proto, h.addr, h.once)
	}
	found, err := n.lookup(ctx, h.name)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, &net.DNSError{Err: "no address", Name: h.name, IsNotFound: true}
	}
	found = found[:min(len(found), maxAddresses)]
	var failed error
	for i, addr := range found {
		a := netip.AddrPortFrom(addr.Unmap(), h.addr.Port())
		c, err := n.dialOne(ctx, h, a, len(found)-i)
		if err == nil {
			n.leads(h, a)
			return c, nil
		}
		// The first error is told, unless it is of an address that was not even tried.
		if _, closed := errors.AsType[*ClosedError](failed); failed == nil || closed {
			failed = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

// dialOne dials an address of a name, and leaves time for those after it.
func (n *Network) dialOne(ctx context.Context, h *held, a netip.AddrPort, left int) (net.Conn, error) {
	r := n.rules.Load().with(h.once)
	if v := r.dialed(a, h.proto); !v.Allow {
		return nil, &ClosedError{a, v.Rule}
	}
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, max(time.Until(deadline)/time.Duration(left), leastDial))
		defer cancel()
	}
	if r.allow == nil {
		if proxy, host := n.upstreamFor("", a, h.proto); proxy != nil {
			return n.dialUpstream(ctx, proxy, host, a.Port())
		}
	}
	return n.dialAddress(ctx, h.proto, a, h.once)
}
