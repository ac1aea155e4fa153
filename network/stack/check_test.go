package stack

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/policy"
)

func TestCheckTellsWhatDecides(t *testing.T) {
	z := zone{"www.example": {"93.184.215.14"}, "lan.example": {"192.168.1.1"}, "both.example": {"127.0.0.1", "93.184.215.14"}}
	for _, tt := range []struct {
		mode        network.Mode
		allow, deny []string
		host        string
		rule        string
		addr        string
		open, asks  bool
	}{
		{mode: network.ModePublic, host: "www.example", open: true, rule: policy.RulePublic, addr: "93.184.215.14"},
		{mode: network.ModePublic, host: "both.example.", open: true, rule: policy.RulePublic, addr: "93.184.215.14"},
		{mode: network.ModePublic, host: "lan.example", rule: policy.RulePrivate, addr: "192.168.1.1"},
		{mode: network.ModePublic, host: "::ffff:127.0.0.1", rule: policy.RuleLoopback, addr: "127.0.0.1"},
		{mode: network.ModePublic, host: "10.0.2.2", rule: RuleGateway, addr: "10.0.2.2"},
		{mode: network.ModePublic, allow: []string{"192.168.1.0/24"}, host: "lan.example", open: true, rule: "192.168.1.0/24", addr: "192.168.1.1"},
		{mode: network.ModePublic, deny: []string{"93.184.0.0/16"}, host: "93.184.215.14", rule: "deny 93.184.0.0/16", addr: "93.184.215.14"},
		{mode: network.ModeAllowlist, allow: []string{"*.example"}, host: "www.example", open: true, rule: "*.example", addr: "93.184.215.14"},
		{mode: network.ModeAllowlist, allow: []string{"*.example"}, host: "lan.example", rule: policy.RulePrivate, addr: "192.168.1.1"},
		{mode: network.ModeAllowlist, allow: []string{"*.example"}, host: "www.other", rule: policy.RuleNotAllowed},
		{mode: network.ModeAllowlist, allow: []string{"*.example"}, host: "93.184.215.14", rule: policy.RuleNotAllowed, addr: "93.184.215.14"},
		{mode: network.ModeAllowlist, allow: []string{"*.example"}, deny: []string{"www.example"}, host: "www.example", rule: "deny www.example"},
		{mode: network.ModeAllowlist, allow: []string{"*.example"}, deny: []string{"93.184.215.14"}, host: "www.example", rule: "deny 93.184.215.14", addr: "93.184.215.14"},
		{mode: network.ModeAsk, allow: []string{"*.example"}, host: "www.example", open: true, rule: "*.example", addr: "93.184.215.14"},
		{mode: network.ModeAsk, host: "www.other", rule: policy.RuleNotAllowed, asks: true},
		{mode: network.ModeAsk, host: "93.184.215.14", rule: policy.RuleNotAllowed, addr: "93.184.215.14", asks: true},
		{mode: network.ModeAsk, host: "127.0.0.1", rule: policy.RuleNotAllowed, addr: "127.0.0.1"},
		{mode: network.ModeAsk, deny: []string{"*.other"}, host: "www.other", rule: "deny *.other"},
	} {
		c, err := ConfigOf(tt.mode, tt.allow, tt.deny)
		if err != nil {
			t.Fatal(err)
		}
		c.Resolver = z
		got, err := Check(context.Background(), c, tt.host, 443, policy.TCP)
		want := Answer{Verdict: policy.Verdict{Allow: tt.open, Rule: tt.rule}, Asks: tt.asks}
		if tt.addr != "" {
			want.Addr = netip.MustParseAddr(tt.addr)
		}
		if err != nil || got != want {
			t.Errorf("%s, %v, %v: %s: %+v, %v, want %+v", tt.mode, tt.allow, tt.deny, tt.host, got, err, want)
		}
	}
	for _, rules := range [][2][]string{{{"api.example"}, nil}, {nil, {"api.example"}}, {{"preset:github"}, nil}} {
		if _, err := ConfigOf(network.ModePublic, rules[0], rules[1]); err == nil || !strings.Contains(err.Error(), "knows only addresses") {
			t.Errorf("the public network has the rules %q: %v", rules, err)
		}
	}
	if _, err := ConfigOf(network.ModeUser, nil, nil); err == nil {
		t.Error("QEMU's own network is judged")
	}
}
