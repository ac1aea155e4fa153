package policy_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/network/policy"
)

func allowlist(t testing.TB, rules ...string) *policy.Allowlist {
	t.Helper()
	l := &policy.Allowlist{Public: public()}
	for _, text := range rules {
		r, err := policy.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		l.Rules = append(l.Rules, r)
	}
	return l
}

func TestRulesOpenTheNamesThatTheyName(t *testing.T) {
	l := allowlist(t, "api.example.com", "*.cdn.example:8443", "Mixed.Example.:*", "ntp.example:123/udp", "_srv.example:1", "host.internal:80", "preset:github")
	for _, c := range []struct {
		name  string
		port  uint16
		proto policy.Proto
		rule  string
		allow bool
	}{
		{"api.example.com", 443, policy.TCP, "api.example.com", true},
		{"API.example.COM.", 80, policy.TCP, "api.example.com", true},
		{"api.example.com", 22, policy.TCP, policy.RuleNotAllowed, false},
		{"api.example.com", 443, policy.UDP, policy.RuleNotAllowed, false},
		{"api.example.com", 443, policy.ICMP, policy.RuleNotAllowed, false},
		{"x.api.example.com", 443, policy.TCP, policy.RuleNotAllowed, false},
		{"example.com", 443, policy.TCP, policy.RuleNotAllowed, false},
		{"xapi.example.com", 443, policy.TCP, policy.RuleNotAllowed, false},
		{"a.cdn.example", 8443, policy.TCP, "*.cdn.example:8443", true},
		{"a.b.cdn.example", 8443, policy.TCP, "*.cdn.example:8443", true},
		{"cdn.example", 8443, policy.TCP, policy.RuleNotAllowed, false},
		{"xcdn.example", 8443, policy.TCP, policy.RuleNotAllowed, false},
		{"a.cdn.example", 443, policy.TCP, policy.RuleNotAllowed, false},
		{"mixed.example", 5, policy.TCP, "Mixed.Example.:*", true},
		{"mixed.example", 5, policy.UDP, policy.RuleNotAllowed, false},
		{"ntp.example", 123, policy.UDP, "ntp.example:123/udp", true},
		{"ntp.example", 123, policy.TCP, policy.RuleNotAllowed, false},
		{"_srv.example", 1, policy.TCP, "_srv.example:1", true},
		{"github.com", 22, policy.TCP, "preset:github", true},
		{"api.github.com", 443, policy.TCP, "preset:github", true},
		{"api.github.com", 22, policy.TCP, policy.RuleNotAllowed, false},
		{"", 443, policy.TCP, policy.RuleBadName, false},
		{".", 443, policy.TCP, policy.RuleBadName, false},
		{"api..example.com", 443, policy.TCP, policy.RuleBadName, false},
		{"api.example.com..", 443, policy.TCP, policy.RuleBadName, false},
		{"a b.cdn.example", 8443, policy.TCP, policy.RuleBadName, false},
		{"-a.cdn.example", 8443, policy.TCP, policy.RuleBadName, false},
		{"a\x00.cdn.example", 8443, policy.TCP, policy.RuleBadName, false},
		{"*.cdn.example", 8443, policy.TCP, policy.RuleBadName, false},
		{"\u212a.cdn.example", 8443, policy.TCP, policy.RuleBadName, false}, // KELVIN SIGN, whose small letter is k
		{"bücher.cdn.example", 8443, policy.TCP, policy.RuleBadName, false},
		{strings.Repeat("a", 64) + ".cdn.example", 8443, policy.TCP, policy.RuleBadName, false},
		{strings.Repeat("a.", 126) + "cdn.example", 8443, policy.TCP, policy.RuleBadName, false},
		{"93.184.215.14", 443, policy.TCP, policy.RuleBadName, false},
	} {
		if got, want := l.Name(c.name, c.port, c.proto), (policy.Verdict{Allow: c.allow, Rule: c.rule}); got != want {
			t.Errorf("%q at port %d of %s: %+v, want %+v", c.name, c.port, c.proto, got, want)
		}
	}
	if got := l.Lookup("ntp.example"); !got.Allow {
		t.Errorf("the name of a rule for UDP: %+v", got)
	}
	if got := l.Hosts(); !slices.Contains(got, "github.com") || !slices.Contains(got, "mixed.example") || slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "cdn") }) {
		t.Errorf("the hosts are %q", got)
	}
}

func TestRulesOpenTheAddressesThatTheyName(t *testing.T) {
	l := allowlist(t, "1.1.1.1", "9.9.9.0/24:53/udp", "10.1.0.0/16:5432", "192.168.1.0/24:*", "169.254.0.0/16:80", "0.0.0.0/0:7", "8.0.0.7:80", "203.0.113.0/24:22", "169.254.169.254:81", "198.0.0.0/8:80", "name.example")
	for _, c := range []struct {
		addr  string
		proto policy.Proto
		rule  string
		allow bool
	}{
		{"1.1.1.1:443", policy.TCP, "1.1.1.1", true},
		{"[::ffff:1.1.1.1]:443", policy.TCP, "1.1.1.1", true},
		{"1.1.1.1:853", policy.TCP, policy.RuleNotAllowed, false},
		{"1.1.1.2:443", policy.TCP, policy.RuleNotAllowed, false},
		{"1.1.1.1:443", policy.UDP, policy.RuleNotAllowed, false},
		{"1.1.1.1:0", policy.ICMP, policy.RuleNotAllowed, false},
		{"9.9.9.9:53", policy.UDP, "9.9.9.0/24:53/udp", true},
		{"9.9.9.9:53", policy.TCP, policy.RuleNotAllowed, false},
		{"10.1.2.3:5432", policy.TCP, "10.1.0.0/16:5432", true},
		{"10.2.2.3:5432", policy.TCP, policy.RuleNotAllowed, false},
		{"[64:ff9b::a01:203]:5432", policy.TCP, policy.RuleNotAllowed, false},
		{"192.168.1.8:9", policy.TCP, "192.168.1.0/24:*", true},
		{"192.168.1.7:9", policy.TCP, policy.RulePrivate, false}, // the host's own
		{"8.0.0.7:80", policy.TCP, policy.RuleHost, false},
		{"169.254.1.1:80", policy.TCP, "169.254.0.0/16:80", true},
		{"169.254.169.254:80", policy.TCP, policy.RuleMetadata, false},
		{"169.254.169.254:81", policy.TCP, "169.254.169.254:81", true},
		{"8.8.8.8:7", policy.TCP, "0.0.0.0/0:7", true},
		{"10.9.9.9:7", policy.TCP, policy.RulePrivate, false},
		{"127.0.0.1:7", policy.TCP, policy.RuleLoopback, false},
		{"255.255.255.255:7", policy.TCP, policy.RuleBroadcast, false},
		{"203.0.113.5:22", policy.TCP, "203.0.113.0/24:22", true},
		{"198.18.0.1:80", policy.TCP, policy.RuleReserved, false},
	} {
		got := l.Address(netip.MustParseAddrPort(c.addr), c.proto)
		if want := (policy.Verdict{Allow: c.allow, Rule: c.rule}); got != want {
			t.Errorf("%s over %s: %+v, want %+v", c.addr, c.proto, got, want)
		}
	}
}

func TestANameLeadsToPublicAddressesAndThoseThatARuleOpens(t *testing.T) {
	l := allowlist(t, "db.example:5432", "10.1.0.0/16:5432")
	for addr, want := range map[string]policy.Verdict{
		"93.184.215.14:5432":         {Allow: true, Rule: policy.RulePublic},
		"10.1.0.5:5432":              {Allow: true, Rule: "10.1.0.0/16:5432"},
		"10.1.0.5:443":               {Rule: policy.RulePrivate},
		"10.2.0.5:5432":              {Rule: policy.RulePrivate},
		"127.0.0.1:5432":             {Rule: policy.RuleLoopback},
		"[::1]:5432":                 {Rule: policy.RuleLoopback},
		"[64:ff9b::a01:5]:5432":      {Rule: policy.RulePrivate},
		"[2606:4700::1111]:5432":     {Allow: true, Rule: policy.RulePublic},
		"[::ffff:169.254.169.254]:1": {Rule: policy.RuleMetadata},
	} {
		if got := l.Dialed(netip.MustParseAddrPort(addr), policy.TCP); got != want {
			t.Errorf("%s: %+v, want %+v", addr, got, want)
		}
	}
}

func TestErrorsOfRulesSayWhereAndHow(t *testing.T) {
	for text, want := range map[string]string{
		"":                         "character 1: there is nothing between two dots, or no name; write it like api.example.com",
		"example.com:https":        `character 13: "https" is no port`,
		"example.com:0":            `"0" is no port`,
		"example.com:0443":         `"0443" is no port`,
		"example.com:65536":        `"65536" is no port`,
		"example.com:":             `"" is no port`,
		"example.com/udp":          "character 12: a rule for UDP needs a port; write it like ntp.example.com:123/udp",
		"example.com:53/tcp":       "is no port",
		"example.com/path":         "character 12: a slash",
		"*":                        "opens every name",
		"*:443":                    "opens every name",
		"*.":                       "there is nothing between two dots",
		"a.*.example":              `character 3: '*' cannot be in a name`,
		"*.*.example":              `character 3: '*' cannot be in a name`,
		"a..example":               "character 3: there is nothing between two dots",
		"example.com..":            "character 13: there is nothing",
		"bücher.example":           "xn--",
		"a b.example":              `character 2: ' ' cannot be in a name`,
		"-a.example":               "character 1: a hyphen",
		"a-.example":               "character 2: a hyphen",
		"*.a-.example":             "character 4: a hyphen",
		"*.1":                      "no address and no network",
		"a.0x7f":                   "no address and no network",
		"256.1.1.1":                `"256.1.1.1" is no address`,
		"10.0.0.1/33":              "no address and no network",
		"10.0.0.1/24":              "10.0.0.1 is an address within the network 10.0.0.0/24",
		"127.0.0.1:8080":           `the rule "127.0.0.1:8080" names this machine itself, of which no rule opens anything`,
		"127.0.0.0/8":              "names this machine itself",
		"10.0.2.2:5432":            "names this machine itself",
		"10.0.2.3:53/udp":          "names this machine itself",
		"10.0.2.4:80":              "", // of a network of the user's that has these addresses, too
		"10.0.2.0/24:80":           "",
		"localhost:3000":           "names this machine itself",
		"Localhost.":               "names this machine itself",
		"*.localhost":              "names this machine itself",
		"host.sandbox.internal":    "names this machine itself",
		"*.sandbox.internal":       "names this machine itself",
		"db.internal:5432":         "",
		"0.0.0.0":                  "no rule opens 0.0.0.0/32 (unspecified)",
		"224.0.0.251:5353/udp":     "no rule opens",
		"255.255.255.255:9/udp":    "no rule opens",
		"198.18.0.0/16":            "stand for the names",
		"[::1]:443":                "names this machine itself",
		"2606:4700::1":             "character 1: an address of IPv6 stands between [ and ]",
		"[2606:4700::1":            "there is no ] to the [",
		"[2606:4700::1]443":        "character 15: after a ], there is a port or nothing",
		"[2606:4700::1]:0":         `character 16: "0" is no port`,
		"[2606:4700::1]/udp":       "a rule for UDP needs a port",
		"[2606:4700::1/64]":        "2606:4700::1 is an address within the network 2606:4700::/64",
		"[10.0.0.1]:22":            `"10.0.0.1" is no address and no network of IPv6`,
		"[::ffff:10.0.0.1]:22":     "is no address and no network of IPv6",
		"[fe80::1%eth0]:22":        "is no address and no network of IPv6",
		"[ff02::fb]:5353/udp":      "no rule opens",
		"[example.com]:22":         "is no address and no network of IPv6",
		"preset:npmjs":             "character 8: there is no such preset, but anthropic, github, google, openai, opencode, cargo, debian, go, nix, npm, pypi; write it like preset:anthropic",
		strings.Repeat("a.", 130):  "at most 253 characters",
		strings.Repeat("a", 64):    "character 64",
		"preset:":                  "no such preset",
		"npm":                      "character 1: it is the name of a preset, and would stand for a host that is called so; write it like preset:npm",
		"github":                   "write it like preset:github",
		"npm:443":                  "", // a host after all
		"example.com:443/udp/udp":  "is no port",
		"example.com,example.org":  `',' cannot be in a name`,
		" example.com":             "character 1",
		"user@example.com":         `'@' cannot be in a name`,
		"169.254.169.254.nip.io:*": "",
	} {
		_, err := policy.ParseRule(text)
		switch {
		case want == "":
			if err != nil {
				t.Errorf("%q: %v", text, err)
			}
		case err == nil || !strings.Contains(err.Error(), want):
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestPresetsAreRules(t *testing.T) {
	for _, p := range policy.Presets() {
		r, err := policy.ParseRule("preset:" + p.Name)
		if err != nil || r.String() != "preset:"+p.Name || (len(p.Rules) == 0) != p.Read || (p.Date == "") != p.Read {
			t.Errorf("%+v: %v", p, err)
		}
		if _, err := policy.ParseDeny("preset:" + p.Name); (err == nil) == p.Read {
			t.Errorf("%s is denied: %v", p.Name, err)
		}
		if err := r.CheckPublic(); err == nil {
			t.Errorf("%s is a rule of the public network", p.Name)
		}
		if (r.Reads() == p.Name) != p.Read {
			t.Errorf("%s reads %q", p.Name, r.Reads())
		}
	}
}

// FuzzParseRule holds that a rule opens what it names and nothing of the host.
func FuzzParseRule(f *testing.F) {
	for _, seed := range []string{"api.example.com", "*.example.com:8443", "203.0.113.0/24:22", "ntp.example:123/udp", "preset:github", "0.0.0.0/0:*", "10.0.0.0/8:*", "a.b:*/udp", "127.0.0.1", "GET,HEAD https://*.a.b:8443/v1/*/c%20d/**", "git:https://github.com/o/r.git"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := policy.ParseRule(text)
		if err != nil {
			if !errors.Is(err, policy.ErrHost) && !strings.Contains(err.Error(), "; write it like ") {
				t.Errorf("%q: the error shows no example: %v", text, err)
			}
			return
		}
		if r.String() != text {
			t.Errorf("%q is shown as %q", text, r)
		}
		l := &policy.Allowlist{Rules: []policy.Rule{r}, Public: public()}
		for _, name := range l.Hosts() {
			if v := l.Lookup(name); !v.Allow || v.Rule != text {
				t.Errorf("%q does not open %q: %+v", text, name, v)
			}
		}
		for _, addr := range append(hostAddresses, netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("224.0.0.1"), netip.MustParseAddr("198.18.0.1")) {
			for _, proto := range []policy.Proto{policy.TCP, policy.UDP, policy.ICMP} {
				for _, port := range []uint16{22, 80, 443} {
					if a := netip.AddrPortFrom(addr, port); l.Address(a, proto).Allow || l.Dialed(a, proto).Allow {
						t.Errorf("%q opens %s", text, a)
					}
				}
			}
		}
	})
}

// FuzzName holds that a name is open if it is that of a rule, or below a domain's, and otherwise not.
func FuzzName(f *testing.F) {
	f.Add("api.example.com")
	f.Add("a.b.Example.ORG.")
	f.Add("example.org")
	f.Add("x\x00.example.org")
	l := allowlist(f, "api.example.com", "*.example.org")
	f.Fuzz(func(t *testing.T, name string) {
		v := l.Name(name, 443, policy.TCP)
		plain := strings.ToLower(strings.TrimSuffix(name, "."))
		is := plain == "api.example.com" || strings.HasSuffix(plain, ".example.org")
		if v.Allow && !is {
			t.Errorf("%q is open", name)
		}
		odd := strings.ContainsFunc(name, func(r rune) bool { return r > 0x7f }) || strings.Trim(plain, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" || strings.Contains(plain, "..") || strings.HasPrefix(plain, ".") || len(plain) > 253
		if odd && v.Rule != policy.RuleBadName {
			t.Errorf("%q is no name, and: %+v", name, v)
		}
		if is && !v.Allow && v.Rule != policy.RuleBadName {
			t.Errorf("%q is closed: %+v", name, v)
		}
		if w := l.Name(strings.ToUpper(name), 443, policy.TCP); w != v && !odd {
			t.Errorf("%q and its capitals are not the same: %+v, %+v", name, v, w)
		}
	})
}

func ExampleParseRule() {
	for _, text := range []string{"*.example.com:8443", "example.com/udp"} {
		r, err := policy.ParseRule(text)
		fmt.Println(r, err)
	}
	// Output:
	// *.example.com:8443 <nil>
	//  the rule "example.com/udp" is wrong at character 12: a rule for UDP needs a port; write it like ntp.example.com:123/udp
}
