package policy_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/sourcery-zone/sandbox/network/policy"
)

var hostAddresses = []netip.Addr{
	netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.168.1.7"), netip.MustParseAddr("8.0.0.7"),
	netip.MustParseAddr("2a00::7"), netip.MustParseAddr("fe80::7%eth0"),
}

func public() *policy.Policy {
	return &policy.Policy{Host: func() ([]netip.Addr, error) { return hostAddresses, nil }}
}

func TestPublicAddresses(t *testing.T) {
	for addr, rule := range map[string]string{
		"1.1.1.1":                      policy.RulePublic,
		"8.8.8.8":                      policy.RulePublic,
		"9.255.255.255":                policy.RulePublic,
		"11.0.0.0":                     policy.RulePublic,
		"172.15.255.255":               policy.RulePublic,
		"172.32.0.0":                   policy.RulePublic,
		"100.63.255.255":               policy.RulePublic,
		"100.128.0.0":                  policy.RulePublic,
		"198.17.255.255":               policy.RulePublic,
		"198.20.0.0":                   policy.RulePublic,
		"223.255.255.255":              policy.RulePublic,
		"2606:4700::1111":              policy.RulePublic,
		"64:ff9b::808:808":             policy.RulePublic,
		"2002:808:808::1":              policy.RulePublic,
		"::ffff:8.8.8.8":               policy.RulePublic,
		"127.0.0.1":                    policy.RuleLoopback,
		"127.255.255.254":              policy.RuleLoopback,
		"::1":                          policy.RuleLoopback,
		"::ffff:127.0.0.1":             policy.RuleLoopback,
		"::127.0.0.1":                  policy.RuleLoopback,
		"::ffff:0:127.0.0.1":           policy.RuleLoopback,
		"64:ff9b::7f00:1":              policy.RuleLoopback,
		"64:ff9b:1::7f00:1":            policy.RuleReserved,
		"64:ff9b:1:7f00:0:1::":         policy.RuleReserved,
		"2002:7f00:1::":                policy.RuleLoopback,
		"192.0.0.9":                    policy.RuleReserved,
		"2001:1::1":                    policy.RuleReserved,
		"2001:0:808:808:0:0:80ff:fffe": policy.RuleLoopback, // a Teredo client at 127.0.0.1
		"2001:0:7f00:1:0:0:f7f7:f7f7":  policy.RuleLoopback, // a Teredo server at 127.0.0.1
		"2a00:1:2:3:0:5efe:7f00:1":     policy.RuleLoopback,
		"2a00:1:2:3:200:5efe:7f00:1":   policy.RuleLoopback,
		"0.0.0.0":                      policy.RuleUnspecified,
		"0.1.2.3":                      policy.RuleUnspecified,
		"::":                           policy.RuleUnspecified,
		"10.0.2.2":                     policy.RulePrivate,
		"172.16.0.1":                   policy.RulePrivate,
		"172.31.255.255":               policy.RulePrivate,
		"192.168.0.1":                  policy.RulePrivate,
		"fd12::1":                      policy.RulePrivate,
		"fec0::1":                      policy.RulePrivate,
		"100.64.0.1":                   policy.RuleShared,
		"169.254.1.1":                  policy.RuleLinkLocal,
		"fe80::1":                      policy.RuleLinkLocal,
		"fe80::1%eth0":                 policy.RuleLinkLocal,
		"169.254.169.254":              policy.RuleMetadata,
		"169.254.170.2":                policy.RuleMetadata,
		"100.100.100.200":              policy.RuleMetadata,
		"168.63.129.16":                policy.RuleMetadata,
		"fd00:ec2::254":                policy.RuleMetadata,
		"64:ff9b::a9fe:a9fe":           policy.RuleMetadata,
		"224.0.0.251":                  policy.RuleMulticast,
		"239.255.255.250":              policy.RuleMulticast,
		"ff02::fb":                     policy.RuleMulticast,
		"255.255.255.255":              policy.RuleBroadcast,
		"192.0.2.1":                    policy.RuleReserved,
		"198.18.0.1":                   policy.RuleReserved,
		"198.19.255.255":               policy.RuleReserved,
		"198.51.100.1":                 policy.RuleReserved,
		"203.0.113.1":                  policy.RuleReserved,
		"240.0.0.1":                    policy.RuleReserved,
		"2001:db8::1":                  policy.RuleReserved,
		"100::1":                       policy.RuleReserved,
		"5f00::1":                      policy.RuleReserved,
		"::8.8.8.8":                    policy.RuleReserved, // of no use, and no part of the Internet
		"192.168.1.7":                  policy.RulePrivate,
		"8.0.0.7":                      policy.RuleHost,
		"::ffff:8.0.0.7":               policy.RuleHost,
		"64:ff9b::800:7":               policy.RuleHost,
		"2a00::7":                      policy.RuleHost,
		"2a00::7%eth0":                 policy.RuleHost,
		"2a00::8":                      policy.RuleSite, // a machine beside the host
		"2a00:0:0:ffff::8":             policy.RuleSite,
		"2a00:0:1::8":                  policy.RulePublic,
	} {
		for _, proto := range []policy.Proto{policy.TCP, policy.UDP, policy.ICMP} {
			got := public().Address(netip.AddrPortFrom(netip.MustParseAddr(addr), 443), proto)
			if want := (policy.Verdict{Allow: rule == policy.RulePublic, Rule: rule}); got != want {
				t.Errorf("%s over %s: %+v, want %+v", addr, proto, got, want)
			}
		}
	}
	if got := public().Address(netip.AddrPort{}, policy.TCP); got.Allow {
		t.Error("no address at all is open")
	}
}

func TestNothingIsOpenWhileTheHostIsUnknown(t *testing.T) {
	for name, p := range map[string]*policy.Policy{
		"no function": {},
		"an error":    {Host: func() ([]netip.Addr, error) { return nil, errors.New("no netlink") }},
	} {
		got := p.Address(netip.MustParseAddrPort("8.8.8.8:53"), policy.UDP)
		if got.Allow || got.Rule != policy.RuleHostUnknown {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestAnAddressThatTheHostGetsIsClosedAtOnce(t *testing.T) {
	var host []netip.Addr
	p := &policy.Policy{Host: func() ([]netip.Addr, error) { return host, nil }}
	a := netip.MustParseAddrPort("8.8.4.4:80")
	if !p.Address(a, policy.TCP).Allow {
		t.Fatal("it is closed before the host has it")
	}
	host = append(host, a.Addr())
	if p.Address(a, policy.TCP).Allow {
		t.Fatal("it is open when the host has it")
	}
}

// FuzzAddress holds that an address of IPv4 that is closed is closed in each form in which IPv6 can carry it.
func FuzzAddress(f *testing.F) {
	for _, a := range []uint32{0x7f000001, 0x0a000202, 0xa9fea9fe, 0x08080808, 0x08000007, 0} {
		f.Add(a, uint64(0x1234567890abcdef))
	}
	f.Fuzz(func(t *testing.T, v4 uint32, noise uint64) {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], v4)
		addr := netip.AddrFrom4(b)
		p := public()
		open := p.Address(netip.AddrPortFrom(addr, 1), policy.TCP).Allow
		hi, lo := v4>>16, v4&0xffff
		n := func(i int) uint64 { return noise >> i & 0xffff }
		for _, text := range []string{
			fmt.Sprintf("::ffff:%s", addr),
			fmt.Sprintf("::%x:%x", hi, lo),
			fmt.Sprintf("::ffff:0:%x:%x", hi, lo),
			fmt.Sprintf("64:ff9b::%x:%x", hi, lo),
			fmt.Sprintf("64:ff9b:1::%x:%x", hi, lo),
			fmt.Sprintf("64:ff9b:1:%x:%x:%x:%x:0", hi, lo>>8, lo&0xff<<8, n(0)),
			fmt.Sprintf("64:ff9b:1:%x:%x:%x:%x:%x", n(0), n(16), n(32), hi, lo),
			fmt.Sprintf("2002:%x:%x:%x:%x:%x:%x:%x", hi, lo, n(0), n(16), n(32), n(48), n(8)),
			fmt.Sprintf("2001:0:%x:%x:%x:%x:%x:%x", hi, lo, n(0), n(16), n(32), n(48)),
			fmt.Sprintf("2001:0:%x:%x:%x:%x:%x:%x", n(0), n(16), n(32), n(48), hi^0xffff, lo^0xffff),
			fmt.Sprintf("%x:%x:%x:%x:0:5efe:%x:%x", n(0), n(16), n(32), n(48), hi, lo),
			fmt.Sprintf("%x:%x:%x:%x:200:5efe:%x:%x%%eth0", n(0), n(16), n(32), n(48), hi, lo),
		} {
			form, err := netip.ParseAddr(text)
			if err != nil {
				t.Fatal(err)
			}
			if p.Address(netip.AddrPortFrom(form, 1), policy.TCP).Allow && !open {
				t.Errorf("%s is closed, and open as %s", addr, form)
			}
		}
	})
}

func ExamplePolicy_Address() {
	p := &policy.Policy{Host: func() ([]netip.Addr, error) { return nil, nil }}
	for _, a := range []string{"1.1.1.1:443", "[::ffff:192.168.1.1]:80"} {
		v := p.Address(netip.MustParseAddrPort(a), policy.TCP)
		fmt.Println(v.Allow, v.Rule)
	}
	// Output:
	// true public
	// false private
}
