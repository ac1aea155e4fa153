package policy

import (
	"fmt"
	"net/netip"
	"slices"
)

// DenyPrefix comes before the text of a rule that closes, where a Verdict names it.
const DenyPrefix = "deny "

// ParseDeny reads a rule that closes. It is written as one that opens, and where it names no port, it is about all of
// them, and all protocols.
func ParseDeny(text string) (Rule, error) {
	r, err := ParseRule(text)
	if err != nil {
		return r, err
	}
	if r.reads != "" {
		return Rule{}, ruleError(text, 0, "registry.example.com", "what a package manager is set to can be opened and not closed")
	}
	r.targets = slices.Clone(r.targets)
	for i, t := range r.targets {
		if t.requests != nil {
			return Rule{}, ruleError(text, 0, "api.example.com", "single requests can be opened, and only whole hosts be closed")
		}
		if t.port == webPorts {
			r.targets[i].port, r.targets[i].proto = anyPort, anyProto
		}
	}
	return r, nil
}

// CheckPublic tells whether a rule can open or close something in the public network, which judges addresses. Of a name,
// it does not know whether a guest means it: at the same address are others, and the guest may know the address from
// elsewhere.
func (r Rule) CheckPublic() error {
	if r.reads != "" {
		return fmt.Errorf("the rule %q names hosts, and the public network is open to those of the Internet: name the address of one that is not, such as 10.1.0.5:8081", r.text)
	}
	for _, t := range r.targets {
		if t.name != "" {
			return fmt.Errorf("the rule %q names hosts, and the public network is open to all of the Internet's: its rules are about addresses, such as 10.1.0.0/16:5432, and those of an allowlist about names", r.text)
		}
	}
	return nil
}

// denied returns the verdict of the first rule that closes what match tells of, or none.
func denied(rules []Rule, match func(target) bool) (Verdict, bool) {
	for _, r := range rules {
		if slices.ContainsFunc(r.targets, match) {
			return Verdict{Rule: DenyPrefix + r.text}, true
		}
	}
	return Verdict{}, false
}

// deniedAddress is denied for an address, and those that stand in it.
func deniedAddress(rules []Rule, a netip.AddrPort, proto Proto) (Verdict, bool) {
	if len(rules) == 0 {
		return Verdict{}, false
	}
	addr := a.Addr().Unmap().WithZone("")
	all := append(embedded(addr), addr)
	return denied(rules, func(t target) bool {
		return t.name == "" && t.matchesPort(a.Port(), proto) && slices.ContainsFunc(all, t.closes)
	})
}

// DeniesAddresses tells whether a rule closes addresses at a port, so that it matters where an open name leads even to who
// leaves that to somebody else.
func (l *Allowlist) DeniesAddresses(port uint16, proto Proto) bool {
	_, ok := denied(l.Deny, func(t target) bool { return t.name == "" && t.matchesPort(port, proto) })
	return ok
}

// DeniedAddress returns the verdict of the first rule that closes an address, if one does.
func (l *Allowlist) DeniedAddress(a netip.AddrPort, proto Proto) (Verdict, bool) {
	return deniedAddress(l.Deny, a, proto)
}

// closes tells whether a rule that denies an address or a network is about addr. That for all of IPv4 is about all
// addresses: who wrote it did not think of others.
func (t target) closes(addr netip.Addr) bool {
	return t.prefix.Contains(addr) || t.prefix.Addr().Is4() && t.prefix.Bits() == 0
}

// opened returns the verdict of the first rule that opens an address, or of the last that names it but cannot open it, or
// none. A rule opens addresses of the public Internet, and those of a closed range only if it lies within that range: a
// rule for 10.0.0.0/8 was written by somebody who meant it, and one for 0.0.0.0/0 by somebody who did not think of it. The
// host itself is never open.
func opened(rules []Rule, public *Policy, a netip.AddrPort, match func(target) bool) (v Verdict) {
	addr := a.Addr().Unmap()
	for _, r := range rules {
		for _, t := range r.targets {
			if t.name != "" || !t.prefix.Contains(addr) || !match(t) {
				continue
			}
			closed := public.base(addr)
			if closed == "" || openable(closed) && public.around(addr, t.prefix) {
				return Verdict{Allow: true, Rule: r.text}
			}
			v = Verdict{Rule: closed}
		}
	}
	return v
}

// Reachable tells whether any port of an address may be open, so that a name that leads there may be known.
func (p *Policy) Reachable(addr netip.Addr) Verdict {
	addr = addr.Unmap().WithZone("")
	a := netip.AddrPortFrom(addr, 0)
	if v, ok := denied(p.Deny, func(t target) bool {
		return t.name == "" && t.port == anyPort && t.proto == anyProto && t.closes(addr)
	}); ok {
		return v
	}
	closed := p.base(addr)
	if closed == "" {
		return Verdict{Allow: true, Rule: RulePublic}
	}
	if v := opened(p.Allow, p, a, func(target) bool { return true }); v.Allow {
		return v
	}
	return Verdict{Rule: closed}
}
