package stack

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/policy"
	"golang.org/x/net/dns/dnsmessage"
)

func TestCheckTellsWhatDecides(t *testing.T) {
	z := zone{"www.example": {"93.184.215.14"}, "lan.example": {"192.168.1.1"}, "both.example": {"127.0.0.1", "93.184.215.14"}}
	for _, tt := range []struct {
		mode        network.Mode
		allow, deny []string
		host        string
		rule        string
		addr        string
		opens       string
		open, asks  bool
	}{
		{mode: network.ModePublic, host: "www.example", open: true, rule: policy.RulePublic, addr: "93.184.215.14"},
		{mode: network.ModePublic, host: "both.example.", open: true, rule: policy.RulePublic, addr: "93.184.215.14"},
		{mode: network.ModePublic, host: "lan.example", rule: policy.RulePrivate, addr: "192.168.1.1", opens: "192.168.1.1"},
		{mode: network.ModePublic, host: "::ffff:127.0.0.1", rule: policy.RuleLoopback, addr: "127.0.0.1"},
		{mode: network.ModePublic, host: "10.0.2.2", rule: RuleGateway, addr: "10.0.2.2"},
		{mode: network.ModePublic, allow: []string{"192.168.1.0/24"}, host: "lan.example", open: true, rule: "192.168.1.0/24", addr: "192.168.1.1"},
		{mode: network.ModePublic, deny: []string{"93.184.0.0/16"}, host: "93.184.215.14", rule: "deny 93.184.0.0/16", addr: "93.184.215.14"},
		{mode: network.ModeAllowlist, allow: []string{"*.example"}, host: "www.example", open: true, rule: "*.example", addr: "93.184.215.14"},
		{mode: network.ModeAllowlist, allow: []string{"*.example"}, host: "lan.example", rule: policy.RulePrivate, addr: "192.168.1.1", opens: "192.168.1.1"},
		{mode: network.ModeAllowlist, allow: []string{"*.example"}, host: "www.other", rule: policy.RuleNotAllowed, opens: "www.other"},
		{mode: network.ModeAllowlist, allow: []string{"*.example"}, host: "93.184.215.14", rule: policy.RuleNotAllowed, addr: "93.184.215.14", opens: "93.184.215.14"},
		{mode: network.ModeAllowlist, allow: []string{"*.example"}, deny: []string{"www.example"}, host: "www.example", rule: "deny www.example"},
		{mode: network.ModeAllowlist, allow: []string{"*.example"}, deny: []string{"93.184.215.14"}, host: "www.example", rule: "deny 93.184.215.14", addr: "93.184.215.14"},
		{mode: network.ModeAsk, allow: []string{"*.example"}, host: "www.example", open: true, rule: "*.example", addr: "93.184.215.14"},
		{mode: network.ModeAsk, host: "www.other", rule: policy.RuleNotAllowed, opens: "www.other", asks: true},
		{mode: network.ModeAsk, host: "93.184.215.14", rule: policy.RuleNotAllowed, addr: "93.184.215.14", opens: "93.184.215.14", asks: true},
		{mode: network.ModeAsk, host: "127.0.0.1", rule: policy.RuleNotAllowed, addr: "127.0.0.1"},
		{mode: network.ModeAsk, deny: []string{"*.other"}, host: "www.other", rule: "deny *.other"},
	} {
		c, err := ConfigOf(tt.mode, tt.allow, tt.deny)
		if err != nil {
			t.Fatal(err)
		}
		c.Resolver = z
		got, err := Check(context.Background(), c, tt.host, 443, policy.TCP)
		want := Answer{Verdict: policy.Verdict{Allow: tt.open, Rule: tt.rule}, Opens: tt.opens, Asks: tt.asks}
		if tt.addr != "" {
			want.Addr = netip.MustParseAddr(tt.addr)
		}
		if err != nil || got != want {
			t.Errorf("%s, %v, %v: %s: %+v, %v, want %+v", tt.mode, tt.allow, tt.deny, tt.host, got, err, want)
		}
	}
	for _, rules := range [][2][]string{{{"api.example"}, nil}, {nil, {"api.example"}}, {{"preset:github"}, nil}} {
		if _, err := ConfigOf(network.ModePublic, rules[0], rules[1]); err == nil || !strings.Contains(err.Error(), "names hosts") {
			t.Errorf("the public network has the rules %q: %v", rules, err)
		}
	}
	for _, addr := range []netip.Addr{Gateway, DNS} {
		if !policy.RouterAddresses.Contains(addr) {
			t.Errorf("a rule may name %s", addr)
		}
	}
	if _, err := ConfigOf(network.ModeUser, nil, nil); err == nil {
		t.Error("QEMU's own network is judged")
	}
}

// attempt has the guest connect to a host, by its addresses one after the other as clients do, and returns what was decided
// last, of a connection or already of the name, and what the host dialled.
func (l *lab) attempt(host string, port uint16) (e Event, dialed []netip.AddrPort) {
	l.t.Helper()
	forget := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.events, l.dialed = nil, nil
	}
	forget()
	addresses := []string{host}
	if _, err := netip.ParseAddr(host); err != nil {
		if addresses = texts(l.ask(host, dnsmessage.TypeA, 1232)); len(addresses) == 0 {
			return l.event(func(e Event) bool { return e.Proto == "dns" }), nil
		}
	}
	for _, address := range addresses {
		forget()
		if c, err := l.connect(netip.AddrPortFrom(netip.MustParseAddr(address), port)); err == nil {
			fmt.Fprintf(c, "GET / HTTP/1.0\r\nHost: %s\r\n\r\n", host) // where a refusal is told in words
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		}
		if e = l.event(func(e Event) bool { return e.Proto == string(policy.TCP) }); e.Allowed {
			break
		}
	}
	_, dialed = l.seen()
	return e, dialed
}

// What is asked beforehand and what happens to a guest are decided in two ways through the same rules: by many rules,
// names and addresses, both must end at the same place.
func TestWhatCheckSaysIsWhatHappens(t *testing.T) {
	z := zone{
		"a.example": {"93.184.215.14"}, "b.a.example": {"93.184.215.14", "93.184.215.15"}, "c.example": {"8.8.8.8"}, "lan.example": {"10.1.2.3"},
		"rebind.example": {"127.0.0.1"}, "both.example": {"192.168.1.1", "93.184.215.15"}, "host.example": {"93.0.0.1"}, "meta.example": {"169.254.169.254"},
	}
	hosts := append(slices.Sorted(maps.Keys(z)), "93.184.215.14", "93.184.215.15", "8.8.8.8", "10.1.2.3", "192.168.1.1", "93.0.0.1",
		"169.254.169.254", "100.64.0.1", "10.0.2.2", "198.18.200.1")
	addresses := []string{"93.184.215.14", "93.184.215.14:22", "93.184.215.0/24:*", "10.1.0.0/16:22", "10.0.0.0/8:443", "192.168.1.1:80", "0.0.0.0/0:443", "8.8.0.0/16", "169.254.169.254:80", "8.8.8.8:22"}
	names := []string{"a.example", "*.example", "*.a.example:22", "b.a.example:*", "lan.example", "both.example:22", "rebind.example", "c.example:443", "*.example:80", "host.example:*"}
	random := rand.New(rand.NewPCG(12, 0))
	some := func(of []string) (chosen []string) {
		for range random.IntN(4) {
			chosen = append(chosen, of[random.IntN(len(of))])
		}
		return chosen
	}
	for mode, rules := range map[network.Mode][]string{network.ModePublic: addresses, network.ModeAllowlist: slices.Concat(addresses, names)} {
		options := []option{resolver(z)}
		if mode == network.ModeAllowlist {
			options = append(options, allow(t))
		}
		l := newLab(t, options...)
		opened := 0
		const sets, each = 150, 10
		for range sets {
			opens, closes := append(some(rules), some(rules)...), some(rules)
			c, err := ConfigOf(mode, opens, closes)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range []*policy.Policy{c.Policy, l.config.Policy} {
				if p != nil {
					p.Host = func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("93.0.0.1")}, nil }
				}
			}
			if c.Allow != nil {
				c.Allow.Public.Host = l.config.Allow.Public.Host
			}
			l.setRules(opens, closes)
			c.Resolver = z
			for range each {
				host, port := hosts[random.IntN(len(hosts))], []uint16{22, 80, 443}[random.IntN(3)]
				asked := host
				if _, err := netip.ParseAddr(host); err != nil {
					asked = []string{host, host + ".", strings.ToUpper(host)}[random.IntN(3)]
				} else if random.IntN(2) == 0 {
					asked = "::ffff:" + host
				}
				said, err := Check(t.Context(), c, asked, port, policy.TCP)
				if err != nil {
					t.Fatalf("%s: %v", asked, err)
				}
				e, dialed := l.attempt(host, port)
				// Of several addresses that are closed, each is so by a rule of its own; and a name is closed before
				// a port is known, by the rule for all ports where there are two.
				one := len(z[host]) < 2 && e.Proto != "dns"
				if said.Allow != e.Allowed || said.Rule != e.Rule && one {
					t.Errorf("%s, allow %q, deny %q: of %s:%d, check says %t, %s, and what happens is %+v", mode, opens, closes, asked, port, said.Allow, said.Rule, e)
				}
				if e.Allowed != (len(dialed) > 0) || e.Allowed && dialed[0] != netip.AddrPortFrom(said.Addr, port) {
					t.Errorf("%s, allow %q, deny %q: for %s:%d, check names %s, and the host dials %s", mode, opens, closes, asked, port, said.Addr, dialed)
				}
				if e.Allowed {
					opened++
				}
			}
		}
		if closed := sets*each - opened; opened < sets/3 || closed < sets/3 {
			t.Errorf("%s: %d connections are open and %d closed: that proves little", mode, opened, closed)
		}
	}
}
