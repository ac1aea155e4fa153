package policy_test

import (
	"net/netip"
	"testing"

	"github.com/sourcery-zone/sandbox/network/policy"
)

func TestRulesOpenAddressesOfIPv6(t *testing.T) {
	list := allowlist(t, "[2606:4700::1111]:22", "[2606:4700:1::/48]", "[2606:4700:2::]:53/udp", "[fd12::/16]:5432",
		"[2a00::9]:5432", "[2a00::/16]:5433", "[::/0]:443", "0.0.0.0/0:444")
	for text, want := range map[string]policy.Verdict{
		"[2606:4700::1111]:22":  {Allow: true, Rule: "[2606:4700::1111]:22"},
		"[2606:4700::1111]:23":  {Rule: policy.RuleNotAllowed},
		"[2606:4700::1112]:22":  {Rule: policy.RuleNotAllowed},
		"[2606:4700:1::7]:80":   {Allow: true, Rule: "[2606:4700:1::/48]"},
		"[2606:4700:2::]:53":    {Rule: policy.RuleNotAllowed},
		"[fd12::1]:5432":        {Allow: true, Rule: "[fd12::/16]:5432"},
		"[fd13::1]:5432":        {Rule: policy.RuleNotAllowed},
		"[2a00::9]:5432":        {Allow: true, Rule: "[2a00::9]:5432"},
		"[2a00::8]:5433":        {Rule: policy.RuleSite},
		"[2a00:0:1::8]:5433":    {Allow: true, Rule: "[2a00::/16]:5433"},
		"[2606:4700:3::]:443":   {Allow: true, Rule: "[::/0]:443"},
		"[2606:4700:3::]:444":   {Rule: policy.RuleNotAllowed},
		"[fd12::1]:443":         {Rule: policy.RulePrivate},
		"[2a00::7]:443":         {Rule: policy.RuleHost},
		"[2a00::8]:443":         {Rule: policy.RuleSite},
		"[::1]:443":             {Rule: policy.RuleLoopback},
		"[64:ff9b::a00:1]:443":  {Rule: policy.RulePrivate},
		"[64:ff9b::7f00:1]:443": {Rule: policy.RuleLoopback},
		"1.1.1.1:443":           {Rule: policy.RuleNotAllowed},
	} {
		if got := list.Address(netip.MustParseAddrPort(text), policy.TCP); got != want {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
}

func TestRulesDenyAddressesOfIPv6(t *testing.T) {
	for text, denied := range map[string][]string{
		"[2606:4700::/32]":   {"2606:4700::1"},
		"[2606:4700::1]:443": {"2606:4700::1"},
		"0.0.0.0/0":          {"2606:4700::1", "2606:4701::1", "1.1.1.1"},
		"[::/0]":             {"2606:4700::1", "2606:4701::1"},
	} {
		r, err := policy.ParseDeny(text)
		if err != nil {
			t.Fatal(err)
		}
		p := public()
		p.Deny = []policy.Rule{r}
		for _, addr := range []string{"2606:4700::1", "2606:4701::1", "1.1.1.1"} {
			want := true
			for _, d := range denied {
				want = want && d != addr
			}
			if got := p.Address(netip.AddrPortFrom(netip.MustParseAddr(addr), 443), policy.TCP); got.Allow != want {
				t.Errorf("deny %s: %s is %+v", text, addr, got)
			}
		}
	}
}

func TestTheRuleForAnAddressOfIPv6(t *testing.T) {
	for port, want := range map[uint16]string{443: "[2606:4700::1]", 22: "[2606:4700::1]:22"} {
		text := policy.RuleFor("2606:4700::1", port)
		if _, err := policy.ParseRule(text); err != nil || text != want {
			t.Errorf("%q, %v", text, err)
		}
	}
}
