package machine

import (
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/upstream"
)

func TestNetworkOfTheMachineIsTold(t *testing.T) {
	r := network.Resolver{Servers: []string{"192.0.2.1", "::1"}, Search: []string{"corp.example"}}
	for _, tt := range []struct {
		name    string
		s       upstream.Settings
		ping    bool
		ipv6    bool
		verdict Verdict
		want    []string
	}{
		{"plain", upstream.Settings{}, true, false, Good, []string{"over IPv4, as this machine has no way there over IPv6, without a proxy", "closed to them, unless another network is chosen, are this machine", "asked of 192.0.2.1, ::1", "looked for in corp.example", "ping works"}},
		{"behind a proxy", upstream.One("http://u:s3cret@proxy:3128"), false, true, Good, []string{"over IPv4 and IPv6, by way of the proxy http://proxy:3128", "remedy: sysctl net.ipv4.ping_group_range"}},
		{"a proxy that cannot be used", upstream.One("ftp://u:s3cret@proxy"), true, true, Limited, []string{"without a proxy", "is not used: a proxy is written like"}},
	} {
		f := networkFinding(r, tt.s, tt.ping, tt.ipv6)
		if f.Verdict != tt.verdict || strings.Contains(f.Finding, "s3cret") {
			t.Errorf("%s: %+v", tt.name, f)
		}
		for _, want := range tt.want {
			if !strings.Contains(f.Finding, want) {
				t.Errorf("%s: %q is not said in %q", tt.name, want, f.Finding)
			}
		}
	}
}

func TestWhoMayPing(t *testing.T) {
	for _, tt := range []struct {
		groups string
		group  int
		want   bool
	}{
		{"1\t0\n", 1000, false},
		{"1\t0\n", 0, false},
		{"0\t2147483647\n", 1000, true},
		{"0\t2147483647\n", 0, true},
		{"1000\t1000\n", 1001, false},
		{"", 1000, false},
	} {
		if got := mayPing(tt.groups, tt.group); got != tt.want {
			t.Errorf("%q, group %d: %t", tt.groups, tt.group, got)
		}
	}
}
