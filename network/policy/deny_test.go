package policy_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/network/policy"
)

func denyRules(t testing.TB, texts ...string) (rules []policy.Rule) {
	t.Helper()
	for _, text := range texts {
		r, err := policy.ParseDeny(text)
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, r)
	}
	return rules
}

func TestDeniedNamesAreClosedWhateverOpensThem(t *testing.T) {
	l := allowlist(t, "*.example:*", "*.example:53/udp", "preset:github", "api.example")
	l.Deny = denyRules(t, "evil.example", "*.cdn.example:8443", "preset:github", "ntp.example:53/udp")
	for _, c := range []struct {
		name  string
		port  uint16
		proto policy.Proto
		want  policy.Verdict
	}{
		{"evil.example", 443, policy.TCP, policy.Verdict{Rule: "deny evil.example"}},
		{"EVIL.example.", 22, policy.TCP, policy.Verdict{Rule: "deny evil.example"}},
		{"evil.example", 53, policy.UDP, policy.Verdict{Rule: "deny evil.example"}},
		{"not.evil.example", 443, policy.TCP, policy.Verdict{Allow: true, Rule: "*.example:*"}},
		{"a.cdn.example", 8443, policy.TCP, policy.Verdict{Rule: "deny *.cdn.example:8443"}},
		{"a.cdn.example", 443, policy.TCP, policy.Verdict{Allow: true, Rule: "*.example:*"}},
		{"github.com", 22, policy.TCP, policy.Verdict{Rule: "deny preset:github"}},
		{"ntp.example", 53, policy.UDP, policy.Verdict{Rule: "deny ntp.example:53/udp"}},
		{"ntp.example", 53, policy.TCP, policy.Verdict{Allow: true, Rule: "*.example:*"}},
		{"other.test", 443, policy.TCP, policy.Verdict{Rule: policy.RuleNotAllowed}},
		{"evil .example", 443, policy.TCP, policy.Verdict{Rule: policy.RuleBadName}},
	} {
		if got := l.Name(c.name, c.port, c.proto); got != c.want {
			t.Errorf("%q at port %d of %s: %+v, want %+v", c.name, c.port, c.proto, got, c.want)
		}
	}
	// A name is known as long as some port of it may be open.
	for name, want := range map[string]bool{"evil.example": false, "a.cdn.example": true, "ntp.example": true, "github.com": false} {
		if got := l.Lookup(name); got.Allow != want {
			t.Errorf("%s is looked up: %+v", name, got)
		}
	}
}

func TestDeniedAddressesAreClosedWhateverOpensThem(t *testing.T) {
	l := allowlist(t, "10.1.0.0/16:5432", "0.0.0.0/0:443", "api.example")
	l.Deny = denyRules(t, "10.1.2.0/24", "93.184.0.0/16:443", "name.example")
	for addr, want := range map[string]string{
		"10.1.1.1:5432":            "10.1.0.0/16:5432",
		"10.1.2.1:5432":            "deny 10.1.2.0/24",
		"93.184.215.14:443":        "deny 93.184.0.0/16:443",
		"8.8.8.8:443":              "0.0.0.0/0:443",
		"[::ffff:10.1.2.1]:5432":   "deny 10.1.2.0/24",
		"[64:ff9b::5db8:d70e]:443": "deny 93.184.0.0/16:443",
	} {
		if got := l.Address(netip.MustParseAddrPort(addr), policy.TCP); got.Rule != want || got.Allow == strings.HasPrefix(want, "deny") {
			t.Errorf("%s: %+v, want %s", addr, got, want)
		}
		if got := l.Dialed(netip.MustParseAddrPort(addr), policy.TCP); got.Allow == strings.HasPrefix(want, "deny") {
			t.Errorf("%s is dialled for a name: %+v", addr, got)
		}
	}
}

func TestRulesOfThePublicNetworkAreAboutAddresses(t *testing.T) {
	p := public()
	for _, text := range []string{"10.1.0.0/16:5432", "169.254.169.254:80", "0.0.0.0/0:22", "192.168.1.0/24:*"} {
		r, err := policy.ParseRule(text)
		if err != nil || r.CheckPublic() != nil {
			t.Fatal(err, r.CheckPublic())
		}
		p.Allow = append(p.Allow, r)
	}
	p.Deny = denyRules(t, "93.184.0.0/16", "8.8.8.8:53/udp", "10.1.9.0/24")
	for _, c := range []struct {
		addr  string
		proto policy.Proto
		want  policy.Verdict
	}{
		{"1.1.1.1:443", policy.TCP, policy.Verdict{Allow: true, Rule: policy.RulePublic}},
		{"1.1.1.1:22", policy.TCP, policy.Verdict{Allow: true, Rule: policy.RulePublic}},
		{"93.184.215.14:443", policy.TCP, policy.Verdict{Rule: "deny 93.184.0.0/16"}},
		{"93.184.215.14:0", policy.ICMP, policy.Verdict{Rule: "deny 93.184.0.0/16"}},
		{"8.8.8.8:53", policy.UDP, policy.Verdict{Rule: "deny 8.8.8.8:53/udp"}},
		{"8.8.8.8:53", policy.TCP, policy.Verdict{Allow: true, Rule: policy.RulePublic}},
		{"10.1.2.3:5432", policy.TCP, policy.Verdict{Allow: true, Rule: "10.1.0.0/16:5432"}},
		{"10.1.2.3:5432", policy.UDP, policy.Verdict{Rule: policy.RulePrivate}},
		{"10.1.2.3:0", policy.ICMP, policy.Verdict{Rule: policy.RulePrivate}},
		{"10.1.2.3:22", policy.TCP, policy.Verdict{Rule: policy.RulePrivate}},
		{"10.1.9.3:5432", policy.TCP, policy.Verdict{Rule: "deny 10.1.9.0/24"}},
		{"169.254.169.254:80", policy.TCP, policy.Verdict{Allow: true, Rule: "169.254.169.254:80"}},
		{"169.254.169.254:81", policy.TCP, policy.Verdict{Rule: policy.RuleMetadata}},
		{"127.0.0.1:22", policy.TCP, policy.Verdict{Rule: policy.RuleLoopback}},
		{"192.168.1.7:9", policy.TCP, policy.Verdict{Rule: policy.RulePrivate}}, // the host's own
		{"8.0.0.7:22", policy.TCP, policy.Verdict{Rule: policy.RuleHost}},
	} {
		if got := p.Address(netip.MustParseAddrPort(c.addr), c.proto); got != c.want {
			t.Errorf("%s over %s: %+v, want %+v", c.addr, c.proto, got, c.want)
		}
	}
	for addr, want := range map[string]bool{"1.1.1.1": true, "10.1.2.3": true, "10.2.2.3": false, "93.184.215.14": false, "8.8.8.8": true, "192.168.1.7": false, "127.0.0.1": false, "10.1.9.1": false} {
		if got := p.Reachable(netip.MustParseAddr(addr)); got.Allow != want {
			t.Errorf("a name may lead to %s: %+v", addr, got)
		}
	}
	for _, text := range []string{"a.example", "*.example:22", "preset:github"} {
		r, err := policy.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.CheckPublic(); err == nil || !strings.Contains(err.Error(), "its rules are about addresses") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestRequestsAreNotDeniedButTheirHostIs(t *testing.T) {
	for _, text := range []string{"https://api.example/v1/**", "git:https://github.com/a/b"} {
		if _, err := policy.ParseDeny(text); err == nil || !strings.Contains(err.Error(), "only whole hosts be closed") {
			t.Errorf("%s: %v", text, err)
		}
	}
	l := allowlist(t, "https://api.example/**")
	r := policy.Request{Scheme: "https", Host: "api.example", Port: 443, Method: "GET", Path: "/"}
	if got := l.Request(r); !got.Allow {
		t.Errorf("the request is closed: %+v", got)
	}
	l.Deny = denyRules(t, "api.example")
	if got := l.Request(r); got.Allow || got.Rule != "deny api.example" {
		t.Errorf("the request is judged %+v", got)
	}
}
