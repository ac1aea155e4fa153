package policy_test

import (
	"testing"

	"github.com/sourcery-zone/sandbox/network/policy"
)

func TestDestinations(t *testing.T) {
	type destination struct {
		host  string
		port  uint16
		proto policy.Proto
	}
	for text, want := range map[string]destination{
		"https://registry.npmjs.org/":    {"registry.npmjs.org", 443, policy.TCP},
		"http://a.example":               {"a.example", 80, policy.TCP},
		"http://a.example:8080/x?y=/udp": {"a.example", 8080, policy.TCP},
		"ssh://git@github.com/x/y":       {"github.com", 22, policy.TCP},
		"http://[2001:db8::1]/":          {"2001:db8::1", 80, policy.TCP},
		"a.example":                      {"a.example", 443, policy.TCP},
		"a.example:22":                   {"a.example", 22, policy.TCP},
		"10.0.0.1:53/udp":                {"10.0.0.1", 53, policy.UDP},
		"10.0.0.1":                       {"10.0.0.1", 443, policy.TCP},
		"2001:db8::1":                    {"2001:db8::1", 443, policy.TCP},
		"[2001:db8::1]:22":               {"2001:db8::1", 22, policy.TCP},
	} {
		host, port, proto, err := policy.ParseDestination(text)
		if got := (destination{host, port, proto}); got != want || err != nil {
			t.Errorf("%s: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", ":80", "a.example:0", "a.example:http", "a.example:70000", "a b", "http://", "a.example/path", "/udp", "user@host"} {
		if host, port, proto, err := policy.ParseDestination(text); err == nil {
			t.Errorf("%q: %s, %d, %s", text, host, port, proto)
		}
	}
}
