package stack

import (
	"context"
	"net/netip"
	"testing"

	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/policy"
)

func TestCheckTellsWhatDecides(t *testing.T) {
	z := zone{"www.example": {"93.184.215.14"}, "lan.example": {"192.168.1.1"}, "both.example": {"127.0.0.1", "93.184.215.14"}}
	for _, tt := range []struct {
		mode  network.Mode
		rules []string
		host  string
		allow bool
		rule  string
		addr  string
	}{
		{network.ModePublic, nil, "www.example", true, policy.RulePublic, "93.184.215.14"},
		{network.ModePublic, nil, "both.example.", true, policy.RulePublic, "93.184.215.14"},
		{network.ModePublic, nil, "lan.example", false, policy.RulePrivate, "192.168.1.1"},
		{network.ModePublic, nil, "::ffff:127.0.0.1", false, policy.RuleLoopback, "127.0.0.1"},
		{network.ModePublic, nil, "10.0.2.2", false, RuleGateway, "10.0.2.2"},
		{network.ModeAllowlist, []string{"*.example"}, "www.example", true, "*.example", "93.184.215.14"},
		{network.ModeAllowlist, []string{"*.example"}, "lan.example", false, policy.RulePrivate, "192.168.1.1"},
		{network.ModeAllowlist, []string{"*.example"}, "www.other", false, policy.RuleNotAllowed, ""},
		{network.ModeAllowlist, []string{"*.example"}, "93.184.215.14", false, policy.RuleNotAllowed, "93.184.215.14"},
	} {
		c, err := ConfigOf(tt.mode, tt.rules)
		if err != nil {
			t.Fatal(err)
		}
		c.Resolver = z
		got, err := Check(context.Background(), c, tt.host, 443, policy.TCP)
		want := Answer{policy.Verdict{Allow: tt.allow, Rule: tt.rule}, netip.Addr{}}
		if tt.addr != "" {
			want.Addr = netip.MustParseAddr(tt.addr)
		}
		if err != nil || got != want {
			t.Errorf("%s, %v: %s: %+v, %v, want %+v", tt.mode, tt.rules, tt.host, got, err, want)
		}
	}
	if _, err := ConfigOf(network.ModeUser, nil); err == nil {
		t.Error("QEMU's own network is judged")
	}
}
