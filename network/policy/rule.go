package policy

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sourcery-zone/sandbox/network"
)

// Rule opens hosts to a guest, or closes them. ParseRule makes one that opens, and ParseDeny one that closes.
type Rule struct {
	text    string
	targets []target // a preset has several
	reads   string   // the preset whose rules are in the guest
}

// String returns the rule as it was written.
func (r Rule) String() string { return r.text }

// Reads returns the name of the preset that the rule is, if its rules are to be read in the guest: see [Preset]. By itself
// such a rule opens nothing.
func (r Rule) Reads() string { return r.reads }

// target is a host, a domain or a network, at a port.
type target struct {
	name   string       // of a host; with a dot before it, of a domain whose hosts are meant; or empty
	prefix netip.Prefix // if there is no name
	proto  Proto
	port   int // anyPort, webPorts or one

	requests *requests // of HTTP, if not all that goes to the host is meant
}

const (
	anyPort  = -1
	webPorts = 0 // 80 and 443

	anyProto Proto = "" // only of a rule that closes
)

// NameAddresses are the addresses that stand for names in a network with an Allowlist: each name has one, so that an
// address says which name was meant. They are no one's on the Internet (RFC 2544).
var NameAddresses = netip.MustParsePrefix("198.18.0.0/15")

// RouterAddresses are those at which a guest's router and its DNS server are. At them, a guest finds nothing but ports of the
// host that are open to it: see [network.HostPort].
var RouterAddresses = netip.MustParsePrefix("10.0.2.2/31")

// ErrHost is the error of a rule that names the host itself, of which rules open nothing: see [network.HostPort].
var ErrHost = errors.New("this machine itself, of which no rule opens anything")

func hostError(rule string) error { return fmt.Errorf("the rule %q names %w", rule, ErrHost) }

const (
	presetPrefix = "preset:"
	udpSuffix    = "/udp"
)

// ParseRule reads a rule: a host's name, *.example.com for all hosts below a domain but not the domain itself, or an
// address or a network of IPv4, or one of IPv6 in brackets; then :PORT, or :* for all ports, where it is not to be 80 and 443; and /udp, where it
// is not to be TCP. Or preset:NAME, for one of Presets. Or a URL, https://api.example.com/v1/**, with methods before it
// where not all are meant: GET,HEAD https://example.com/**. It opens requests to that host, and not the host. Or
// git:https://github.com/OWNER/REPOSITORY, for the requests by which that repository is fetched from and pushed to.
func ParseRule(text string) (Rule, error) {
	if name, ok := strings.CutPrefix(text, presetPrefix); ok {
		return parsePreset(text, name)
	}
	if strings.HasPrefix(text, gitPrefix) {
		return parseGit(text)
	}
	if slices.ContainsFunc(presets, func(p Preset) bool { return p.Name == text }) {
		return Rule{}, ruleError(text, 0, presetPrefix+text, "it is the name of a preset, and would stand for a host that is called so")
	}
	parse := parseTarget
	if strings.Contains(text, "://") {
		parse = parseRequests
	}
	t, err := parse(text)
	if err != nil {
		return Rule{}, err
	}
	return Rule{text: text, targets: []target{t}}, nil
}

// IsAround tells whether a rule of the public network closes what is around the host. A rule for its address opens it, and none
// for a name that leads there.
func IsAround(rule string) bool {
	switch rule {
	case RulePrivate, RuleShared, RuleSite, RuleLinkLocal:
		return true
	}
	return false
}

// RuleFor is the text of the rule that opens a host, named by name or address, at a port of TCP: without the port if that is
// one of the Web.
func RuleFor(host string, port uint16) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port == 80 || port == 443 {
		return host
	}
	return host + ":" + strconv.Itoa(int(port))
}

// ruleError says what is wrong with a rule, at which byte, and how it could be written.
func ruleError(text string, at int, example, format string, args ...any) error {
	return fmt.Errorf("the rule %q is wrong at character %d: %s; write it like %s", text, at+1, fmt.Sprintf(format, args...), example)
}

func parsePreset(text, name string) (Rule, error) {
	i := slices.IndexFunc(presets, func(p Preset) bool { return p.Name == name })
	if i < 0 {
		var names []string
		for _, p := range presets {
			names = append(names, p.Name)
		}
		return Rule{}, ruleError(text, len(presetPrefix), presetPrefix+names[0], "there is no such preset, but %s", strings.Join(names, ", "))
	}
	r := Rule{text: text}
	if presets[i].Read {
		r.reads = name
	}
	for _, rule := range presets[i].Rules {
		t, err := parseTarget(rule)
		if err != nil {
			return Rule{}, err
		}
		r.targets = append(r.targets, t)
	}
	return r, nil
}

func parseTarget(text string) (t target, err error) {
	const example = "api.example.com, *.example.com:8443, 203.0.113.0/24:22 or [2001:db8::/32]:22"
	rest := text
	t.proto = TCP
	if host, ok := strings.CutSuffix(rest, udpSuffix); ok {
		rest, t.proto = host, UDP
	}
	host, port, hasPort := strings.Cut(rest, ":")
	brackets := strings.HasPrefix(rest, "[")
	if brackets {
		var after string
		if host, after, hasPort = strings.Cut(rest[1:], "]"); !hasPort {
			return t, ruleError(text, 0, example, "there is no ] to the [")
		}
		if port, hasPort = strings.CutPrefix(after, ":"); !hasPort && after != "" {
			return t, ruleError(text, len(host)+2, example, "after a ], there is a port or nothing")
		}
	}
	switch {
	case hasPort && !brackets && strings.Contains(port, ":"):
		return t, ruleError(text, 0, example, "an address of IPv6 stands between [ and ]")
	case hasPort && port == "*":
		t.port = anyPort
	case hasPort:
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || port[0] == '0' {
			return t, ruleError(text, len(rest)-len(port), example, "%q is no port: it is a number from 1 to 65535, or * for all", port)
		}
		t.port = int(n)
	case t.proto == UDP:
		return t, ruleError(text, len(rest), "ntp.example.com:123/udp", "a rule for UDP needs a port")
	}
	if brackets || isAddress(host) {
		var problem string
		if t.prefix, problem = parsePrefix(host, brackets); problem != "" {
			return t, ruleError(text, 0, example, "%s", problem)
		}
		if within(t.prefix, RouterAddresses) || t.prefix.Addr().IsLoopback() {
			return t, hostError(text)
		}
		return t, nil
	}
	if host == "*" {
		return t, ruleError(text, 0, example, "it opens every name, which is no allowlist")
	}
	if i := strings.Index(rest, "/"); i >= 0 {
		return t, ruleError(text, i, example, "a slash is in a network such as 203.0.113.0/24, and in %s at the end", udpSuffix)
	}
	domain, below := strings.CutPrefix(host, "*.")
	if at, problem := checkName(strings.TrimSuffix(domain, ".")); problem != "" {
		return t, ruleError(text, len(host)-len(domain)+at, example, "%s", problem)
	}
	t.name = canonical(domain)
	if isHost := func(of string) bool { return t.name == of || strings.HasSuffix(t.name, "."+of) }; isHost("localhost") || isHost(network.InternalDomain) {
		return t, hostError(text)
	}
	if below {
		t.name = "." + t.name
	}
	return t, nil
}

// isAddress tells whether somebody meant an address or a network: no name ends with a number.
func isAddress(host string) bool {
	addr, _, _ := strings.Cut(host, "/")
	return endsInNumber(addr)
}

// endsInNumber tells whether programs take a name for an address of IPv4, in whatever notation.
func endsInNumber(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	if last == "" {
		return false
	}
	if hex, ok := strings.CutPrefix(strings.ToLower(last), "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(last, "0123456789") == ""
}

// parsePrefix reads an address or a network, of IPv6 if it is in brackets and otherwise of IPv4. One of IPv6 that has an
// address of IPv4 in it is none: a guest's connections to both are judged by the latter.
func parsePrefix(host string, brackets bool) (netip.Prefix, string) {
	whole, version := "/32", 4
	if brackets {
		whole, version = "/128", 6
	}
	text := host
	if !strings.Contains(host, "/") {
		text += whole
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil || prefix.Addr().Is4() == brackets || prefix.Addr().Is4In6() {
		return prefix, fmt.Sprintf("%q is no address and no network of IPv%d", host, version)
	}
	if prefix != prefix.Masked() {
		return prefix, fmt.Sprintf("%s is an address within the network %s", prefix.Addr(), prefix.Masked())
	}
	if within(prefix, NameAddresses) {
		return prefix, fmt.Sprintf("the addresses of %s stand for the names that are open", NameAddresses)
	}
	for _, c := range special {
		if within(prefix, c.prefix) && !openable(c.rule) && c.rule != RuleLoopback { // which has an error of its own
			return prefix, fmt.Sprintf("no rule opens %s (%s)", prefix, c.rule)
		}
	}
	return prefix, ""
}

// openable tells whether a user may open addresses that are closed by a rule of the public network: those of other
// machines. What is the host itself, or more than one machine at once, is never open.
func openable(rule string) bool {
	switch rule {
	case RulePrivate, RuleShared, RuleSite, RuleLinkLocal, RuleMetadata, RuleReserved:
		return true
	}
	return false
}

// within tells whether all of inner is in outer.
func within(inner, outer netip.Prefix) bool {
	return inner.Bits() >= outer.Bits() && outer.Contains(inner.Addr())
}

const (
	maxName  = 253 // bytes of a name in RFC 1035's form, without the dot at its end
	maxLabel = 63
)

// checkName returns what is wrong with a name, and where, or nothing.
func checkName(name string) (at int, problem string) {
	if len(name) > maxName {
		return maxName, fmt.Sprintf("a name has at most %d characters", maxName)
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" {
			return at, "there is nothing between two dots, or no name"
		}
		if len(label) > maxLabel {
			return at + maxLabel, fmt.Sprintf("what is between two dots has at most %d characters", maxLabel)
		}
		for i := range len(label) {
			switch c := label[i]; {
			case 'a' <= c|0x20 && c|0x20 <= 'z', '0' <= c && c <= '9', c == '_':
			case c == '-':
				if i == 0 || i == len(label)-1 {
					return at + i, "a hyphen stands between other characters"
				}
			case c >= 0x80:
				return at + i, "it is not in ASCII: use the name's form that begins with xn--"
			default:
				return at + i, fmt.Sprintf("%q cannot be in a name", c)
			}
		}
		at += len(label) + 1
	}
	if endsInNumber(name) {
		return 0, "a name does not end with a number"
	}
	return 0, ""
}

// canonical is the one form of all that names the same host. It is for names without fault, as there are characters
// whose small form is an ASCII letter.
func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

func (t target) matchesName(name string) bool {
	if domain, ok := strings.CutPrefix(t.name, "."); ok {
		return strings.HasSuffix(name, "."+domain)
	}
	return t.name != "" && t.name == name
}

func (t target) matchesPort(port uint16, proto Proto) bool {
	if t.proto != proto && t.proto != anyProto {
		return false
	}
	switch t.port {
	case anyPort:
		return true
	case webPorts:
		return port == 80 || port == 443
	}
	return t.port == int(port)
}

// The rules of an Allowlist besides those that it is made of.
const (
	RuleNotAllowed = "not-allowed" // no rule opens it
	RuleBadName    = "bad-name"    // it is not the name of a host
)

// Allowlist opens what its rules name, and nothing else.
type Allowlist struct {
	Rules []Rule
	// Deny are rules that close what others open: names, and addresses, also those to which names lead.
	Deny []Rule
	// Public judges the addresses to which names lead: a name opens nothing that the public network does not. It has no
	// rules of its own.
	Public *Policy
}

// With returns a list with one more rule.
func (l *Allowlist) With(r Rule) *Allowlist {
	with := *l
	with.Rules = append(slices.Clone(l.Rules), r)
	return &with
}

// Name tells whether a guest may connect to the host called name. Where it may, the address that is dialled still has
// to be open: see Dialed; and where the verdict says so, each request: see Request.
func (l *Allowlist) Name(name string, port uint16, proto Proto) Verdict {
	at := func(t target) bool { return t.matchesPort(port, proto) }
	return l.name(name, at, at)
}

// Lookup tells whether a guest may know the host called name, because some port of it is open.
func (l *Allowlist) Lookup(name string) Verdict {
	return l.name(name, func(target) bool { return true }, func(t target) bool { return t.port == anyPort && t.proto == anyProto })
}

func (l *Allowlist) name(name string, opens, closes func(target) bool) Verdict {
	if _, problem := checkName(strings.TrimSuffix(name, ".")); problem != "" {
		return Verdict{Rule: RuleBadName}
	}
	name = canonical(name)
	if v, ok := denied(l.Deny, func(t target) bool { return t.matchesName(name) && closes(t) }); ok {
		return v
	}
	v := Verdict{Rule: RuleNotAllowed}
	for _, r := range l.Rules {
		for _, t := range r.targets {
			switch {
			case !t.matchesName(name) || !opens(t):
			case t.requests == nil: // rules open, and none takes away what another one opens
				return Verdict{Allow: true, Rule: r.text}
			case !v.Allow:
				v = Verdict{Allow: true, Rule: r.text, Requests: true}
			}
		}
	}
	return v
}

// Requests tells whether there are rules for requests of HTTP.
func (l *Allowlist) Requests() bool {
	return slices.ContainsFunc(l.Rules, func(r Rule) bool {
		return slices.ContainsFunc(r.targets, func(t target) bool { return t.requests != nil })
	})
}

// Hosts returns the names that rules open one by one.
func (l *Allowlist) Hosts() []string {
	var names []string
	for _, r := range l.Rules {
		for _, t := range r.targets {
			if t.name != "" && t.name[0] != '.' && !slices.Contains(names, t.name) {
				names = append(names, t.name)
			}
		}
	}
	return names
}

// Below tells whether a rule opens a host below a domain, such as *.example.com, or requests to one.
func (l *Allowlist) Below(domain string) bool {
	below, ok := strings.CutPrefix(domain, "*")
	return ok && slices.ContainsFunc(l.Rules, func(r Rule) bool {
		return slices.ContainsFunc(r.targets, func(t target) bool { return strings.HasSuffix(t.name, below) })
	})
}

// Address tells whether a guest may connect to an address that it names itself.
func (l *Allowlist) Address(a netip.AddrPort, proto Proto) Verdict {
	if v, ok := deniedAddress(l.Deny, a, proto); ok {
		return v
	}
	return cmp.Or(opened(l.Rules, l.Public, a, func(t target) bool { return t.matchesPort(a.Port(), proto) }), Verdict{Rule: RuleNotAllowed})
}

// Dialed tells whether the host may dial an address to which an open name leads. It may if it is a public one, or one
// that a rule opens by itself, and if no rule closes it.
func (l *Allowlist) Dialed(a netip.AddrPort, proto Proto) Verdict {
	if v, ok := deniedAddress(l.Deny, a, proto); ok {
		return v
	}
	v := l.Public.Address(a, proto)
	if !v.Allow {
		if opened := l.Address(a, proto); opened.Allow {
			return opened
		}
	}
	return v
}

// around tells whether addr is not the host's own, and all of opens is in the range that closes it.
func (p *Policy) around(addr netip.Addr, opens netip.Prefix) bool {
	host, known := p.addresses()
	if !known {
		return false
	}
	if local, err := p.isHost(host, addr); local || err != nil {
		return false
	}
	closing := site(host, addr)
	for _, c := range special {
		if c.prefix.Contains(addr) {
			closing = c.prefix
			break
		}
	}
	return within(opens, closing)
}
