package stack

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/policy"
	"golang.org/x/net/dns/dnsmessage"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// allow makes a network in which only what the rules say is open.
func allow(t testing.TB, rules ...string) option {
	t.Helper()
	l := &policy.Allowlist{}
	for _, text := range rules {
		r, err := policy.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		l.Rules = append(l.Rules, r)
	}
	return func(c *Config) {
		l.Public = c.Policy
		c.Allow, c.Policy = l, nil
	}
}

func resolver(z zone) option { return func(c *Config) { c.Resolver = z } }

// address is the one that a name has for the guest.
func (l *lab) address(name string) netip.Addr {
	l.t.Helper()
	m := l.ask(name, dnsmessage.TypeA, 1232)
	got := texts(m)
	if m.RCode != dnsmessage.RCodeSuccess || len(got) != 1 {
		l.t.Fatalf("%s has the addresses %v, %s", name, got, m.RCode)
	}
	return netip.MustParseAddr(got[0])
}

func TestAllowedNamesHaveAnAddressOfTheirOwn(t *testing.T) {
	l := newLab(t, allow(t, "api.example.com", "*.cdn.example", "missing.example", "broken.example", "ntp.example:123/udp"), resolver(zone{
		"api.example.com": {"93.184.215.14"}, "a.cdn.example": {"93.184.215.14", "2606:2800::1"}, "b.cdn.example": {"93.184.215.14"},
		"cdn.example": {"93.184.215.14"}, "other.example": {"93.184.215.14"}, "broken.example": {"fail"}, "ntp.example": {"93.184.215.14"},
		"_srv._tcp.cdn.example": {"93.184.215.14"},
	}), func(c *Config) { c.Search = []string{"Corp.example."} })
	seen := map[netip.Addr]string{}
	for _, name := range []string{"api.example.com", "a.cdn.example", "b.cdn.example", "ntp.example"} {
		a := l.address(name)
		if other, ok := seen[a]; ok || !policy.NameAddresses.Contains(a) {
			t.Errorf("%s has the address %s, and so has %q", name, a, other)
		}
		seen[a] = name
		if again := l.address(strings.ToUpper(name)); again != a {
			t.Errorf("%s has the address %s, and then %s", name, a, again)
		}
	}
	if m := l.ask("api.example.com", dnsmessage.TypeA, 1232); m.Answers[0].Header.TTL != 60 {
		t.Errorf("the address is kept for %d s", m.Answers[0].Header.TTL)
	}
	for _, c := range []struct {
		name  string
		kind  dnsmessage.Type
		rcode dnsmessage.RCode
		why   string
	}{
		{"api.example.com", dnsmessage.TypeAAAA, dnsmessage.RCodeSuccess, ""},
		{"a.cdn.example", dnsmessage.TypeAAAA, dnsmessage.RCodeSuccess, ""},
		{"api.example.com", typeHTTPS, dnsmessage.RCodeSuccess, ""},
		{"api.example.com", typeSVCB, dnsmessage.RCodeSuccess, ""},
		{"api.example.com", dnsmessage.TypeTXT, dnsmessage.RCodeSuccess, ""},
		{"_srv._tcp.cdn.example", dnsmessage.TypeSRV, dnsmessage.RCodeSuccess, ""},
		{"missing.example", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
		{"broken.example", dnsmessage.TypeA, dnsmessage.RCodeServerFailure, ""},
		{"other.example", dnsmessage.TypeAAAA, dnsmessage.RCodeSuccess, ""},
		{"other.example", dnsmessage.TypeTXT, dnsmessage.RCodeSuccess, ""},
		{"other.example", typeHTTPS, dnsmessage.RCodeSuccess, ""},
		{"other", dnsmessage.TypeA, dnsmessage.RCodeNameError, notAllowedWhy},
		{"other.example.corp.example", dnsmessage.TypeA, dnsmessage.RCodeNameError, notAllowedWhy},
		{"printer.local", dnsmessage.TypeA, dnsmessage.RCodeNameError, notAllowedWhy},
		{"a.invalid", dnsmessage.TypeA, dnsmessage.RCodeNameError, notAllowedWhy},
		{"x y.example", dnsmessage.TypeA, dnsmessage.RCodeNameError, notAllowedWhy},
		{"x\x1b]0;y\a.example", dnsmessage.TypeA, dnsmessage.RCodeNameError, notAllowedWhy},
		{"14.215.184.93.in-addr.arpa", dnsmessage.TypePTR, dnsmessage.RCodeNameError, notAllowedWhy},
		{"host.sandbox.internal", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
	} {
		m := l.ask(c.name, c.kind, 1232)
		if m.RCode != c.rcode || len(m.Answers) > 0 || explanation(m) != c.why {
			t.Errorf("%s %s: %s %v, %q, want %s, %q", c.name, c.kind, m.RCode, texts(m), explanation(m), c.rcode, c.why)
		}
	}
	// A name that no rule opens has an address as well, to which nobody can connect, and nobody is asked for it.
	for _, name := range []string{"other.example", "cdn.example", "no-such-name.example"} {
		a := l.address(name)
		if other, ok := seen[a]; ok || !policy.NameAddresses.Contains(a) {
			t.Errorf("%s has the address %s, and so has %q", name, a, other)
		}
		seen[a] = name
		if _, err := l.connect(netip.AddrPortFrom(a, 443)); err == nil || !strings.Contains(err.Error(), "no route to host") {
			t.Errorf("%s: %v", name, err)
		}
		if e := l.event(func(e Event) bool { return e.Name == name && e.Proto == "dns" }); e.Rule != RuleNotLookedUp {
			t.Errorf("its lookup is logged as %+v", e)
		}
		if e := l.event(func(e Event) bool { return e.Name == name && e.Proto == "tcp" }); e.Allowed || e.Rule != policy.RuleNotAllowed {
			t.Errorf("the connection to it is logged as %+v", e)
		}
	}
	if e := l.event(func(e Event) bool { return e.Name == "a.cdn.example" }); !e.Allowed || e.Rule != "*.cdn.example" {
		t.Errorf("a name that a rule opens is logged as %+v", e)
	}
}

// explanation is the text of the extended error Blocked, if there is one.
func explanation(m *dnsmessage.Message) string {
	for _, r := range m.Additionals {
		if o, ok := r.Body.(*dnsmessage.OPTResource); ok && extendedError(m) == 15 {
			return string(o.Options[0].Data[2:])
		}
	}
	return ""
}

// TestWhatARuleOpensIsWhatTheGuestReaches compares the matcher with what is dialled.
func TestWhatARuleOpensIsWhatTheGuestReaches(t *testing.T) {
	rules := []string{"api.example.com", "*.cdn.example:8443", "*.any.example:*", "a.cdn.example:22", "rebind.any.example:22", "ntp.example:123/udp", "192.0.2.0/24:22", "10.1.0.0/16:8443", "0.0.0.0/0:8080", "93.184.215.0/24:443"}
	z := zone{}
	names := []string{"api.example.com", "cdn.example", "a.cdn.example", "b.a.cdn.example", "x.any.example", "ntp.example", "other.example"}
	for _, name := range names {
		z[name] = []string{"93.184.215.14"}
	}
	l := newLab(t, allow(t, rules...), resolver(z))
	ports := []uint16{22, 80, 443, 8080, 8443}
	check := func(host string, port uint16) policy.Verdict {
		answer, err := Check(t.Context(), l.config, host, port, policy.TCP)
		if err != nil {
			t.Fatal(err)
		}
		return answer.Verdict
	}
	for _, port := range ports {
		l.listen(port, func(c *net.TCPConn) { c.Close() })
	}
	for _, name := range names {
		m := l.ask(name, dnsmessage.TypeA, 0)
		addr := netip.MustParseAddr(texts(m)[0])
		for _, port := range ports {
			l.compare(netip.AddrPortFrom(addr, port), netip.AddrPortFrom(public, port), check(name, port))
		}
	}
	for _, addr := range []string{"93.184.215.14", "192.0.2.7", "10.1.2.3", "10.2.0.1", "8.8.8.8", "93.0.0.1", "127.0.0.1", "169.254.169.254", "198.18.77.77", "198.19.255.255"} {
		for _, port := range ports {
			a := netip.AddrPortFrom(netip.MustParseAddr(addr), port)
			l.compare(a, a, check(addr, port))
		}
	}
}

// compare lets the guest connect to an address, and holds that the host dials what it should if the verdict says so,
// and otherwise nothing.
func (l *lab) compare(a, dials netip.AddrPort, v policy.Verdict) {
	l.t.Helper()
	_, before := l.seen()
	c, err := l.connect(a)
	if err == nil {
		c.Close()
	}
	_, dialed := l.seen()
	dialed = dialed[len(before):]
	refused := err != nil && strings.Contains(err.Error(), "no route to host")
	if explained(a, v.Rule) {
		refused = err == nil // and told so by HTTP
	}
	if v.Allow && !slices.Equal(dialed, []netip.AddrPort{dials}) || !v.Allow && (len(dialed) > 0 || !refused) {
		l.t.Errorf("the rules say %+v of %s, and the host dials %v, and the guest is told: %v", v, a, dialed, err)
	}
}

func TestANameThatLeadsToAClosedAddressIsNotDialled(t *testing.T) {
	l := newLab(t, allow(t, "*.example:*", "10.1.0.0/16:22"), resolver(zone{
		"loop.example": {"127.0.0.1", "::1"}, "meta.example": {"169.254.169.254"}, "host.example": {"93.0.0.1"}, "lan.example": {"192.168.1.1"},
		"nat64.example": {"64:ff9b::7f00:1"}, "mixed.example": {"10.0.0.1", "93.184.215.14"}, "db.example": {"10.1.0.5"},
	}))
	l.listen(22, func(c *net.TCPConn) { c.Close() })
	for name, rule := range map[string]string{
		"loop.example": policy.RuleLoopback, "meta.example": policy.RuleMetadata, "host.example": policy.RuleHost,
		"lan.example": policy.RulePrivate, "nat64.example": policy.RuleLoopback,
	} {
		if _, err := l.connect(netip.AddrPortFrom(l.address(name), 22)); err == nil || !strings.Contains(err.Error(), "no route to host") {
			t.Errorf("%s: %v", name, err)
		}
		if e := l.event(func(e Event) bool { return e.Proto == "tcp" && e.Name == name }); e.Allowed || e.Rule != rule {
			t.Errorf("%s is logged as %+v", name, e)
		}
	}
	if _, dialed := l.seen(); len(dialed) > 0 {
		t.Errorf("the host dialled %v", dialed)
	}
	l.mustConnect(netip.AddrPortFrom(l.address("mixed.example"), 22))
	_, _ = l.connect(netip.AddrPortFrom(l.address("db.example"), 22))
	if _, dialed := l.seen(); !slices.Equal(dialed, []netip.AddrPort{netip.AddrPortFrom(public, 22), netip.MustParseAddrPort("10.1.0.5:22")}) {
		t.Errorf("the host dialled %v", dialed)
	}
}

func TestANameIsDialledAtOneAddressAfterTheOther(t *testing.T) {
	l := newLab(t, allow(t, "two.example:22", "gone.example:22"), resolver(zone{"two.example": {"2606:2800::1", "93.184.215.13", "93.184.215.14"}}))
	l.listen(22, func(c *net.TCPConn) {
		_, _ = c.Write([]byte("hello"))
		c.Close()
	})
	c := l.mustConnect(netip.AddrPortFrom(l.address("two.example"), 22))
	if got, err := io.ReadAll(c); string(got) != "hello" || err != nil {
		t.Errorf("the guest reads %q, %v", got, err)
	}
	if _, dialed := l.seen(); len(dialed) != 3 {
		t.Errorf("the host dialled %v", dialed)
	}
	// A name of a rule has its address without being asked for, and may be gone all the same.
	addr, _ := l.network.table.address("gone.example")
	if _, err := l.connect(netip.AddrPortFrom(addr, 22)); err == nil || !strings.Contains(err.Error(), "no route to host") {
		t.Errorf("a name that does not exist: %v", err)
	}
}

func TestDatagramsGoWhereARuleSaysUDP(t *testing.T) {
	l := newLab(t, allow(t, "ntp.example:123/udp", "ntp.example:443", "loop.example:123/udp", "93.184.215.14:5353/udp"), resolver(zone{"ntp.example": {"93.184.215.14"}, "loop.example": {"127.0.0.1"}}))
	for _, port := range []uint16{123, 5353} {
		l.listenPackets(port, func(b []byte) []byte { return append([]byte("re:"), b...) })
	}
	for _, a := range []netip.AddrPort{netip.AddrPortFrom(l.address("ntp.example"), 123), netip.AddrPortFrom(public, 5353)} {
		c := l.packetConn(a)
		for range 2 {
			_, _ = c.Write([]byte("time"))
			b := make([]byte, 100)
			if n, err := c.Read(b); err != nil || string(b[:n]) != "re:time" {
				t.Errorf("%s answers %q, %v", a, b[:n], err)
			}
		}
	}
	loop := netip.AddrPortFrom(l.address("loop.example"), 123)
	_, _ = l.packetConn(loop).Write([]byte("time"))
	if e := l.event(func(e Event) bool { return e.Addr == loop }); e.Allowed || e.Rule != policy.RuleLoopback || e.Name != "loop.example" {
		t.Errorf("a name that leads to a closed address is logged as %+v", e)
	}
}

func TestWhatNoRuleOpensIsRefusedOnTheWire(t *testing.T) {
	l := newBareLab(t, allow(t, "good.example", "1.1.1.1", "ntp.example:123/udp"))
	l.barrier()
	from := netip.AddrPortFrom(Guest, 4000)
	good, _ := l.network.table.address("good.example")
	for name, packet := range map[string][]byte{
		"QUIC to an open name":             udpDatagram(from, netip.AddrPortFrom(good, 443), []byte("x")),
		"another port of an open name":     tcpSegment(from, netip.AddrPortFrom(good, 22), header.TCPFlagSyn),
		"a ping of an open name":           echoRequest(good),
		"QUIC to an open address":          udpDatagram(from, netip.MustParseAddrPort("1.1.1.1:443"), []byte("x")),
		"a ping of an open address":        echoRequest(netip.MustParseAddr("1.1.1.1")),
		"another DNS server":               udpDatagram(from, netip.MustParseAddrPort("8.8.8.8:53"), []byte("x")),
		"another DNS server, by TCP":       tcpSegment(from, netip.MustParseAddrPort("8.8.8.8:53"), header.TCPFlagSyn),
		"an address that stands for none":  tcpSegment(from, netip.MustParseAddrPort("198.18.0.0:443"), header.TCPFlagSyn),
		"the real address of an open name": tcpSegment(from, netip.AddrPortFrom(public, 443), header.TCPFlagSyn),
	} {
		l.sendIP(packet)
		if answers := l.barrier(); len(answers) != 1 || what(answers[0]) != prohibited {
			t.Errorf("%s gets %d answers", name, len(answers))
		}
	}
	if _, dialed := l.seen(); len(dialed) > 0 {
		t.Errorf("the host dialled %v", dialed)
	}
}

func TestTheHostThatAClientNamesIsTheOneOfItsAddress(t *testing.T) {
	l := newLab(t, allow(t, "good.example", "1.1.1.1"), resolver(zone{"good.example": {"93.184.215.14"}}))
	heard := make(chan string, 100)
	for _, port := range []uint16{80, 443} {
		l.listen(port, func(c *net.TCPConn) {
			defer c.Close()
			b, _ := io.ReadAll(c)
			heard <- string(b)
		})
	}
	good := l.address("good.example")
	for name, c := range map[string]struct {
		port  uint16
		first []string
		rule  string
	}{
		"TLS":                           {443, []string{hello("good.example")}, ""},
		"TLS in capitals":               {443, []string{hello("GOOD.example")}, ""},
		"TLS without a name":            {443, []string{hello("")}, ""},
		"TLS in pieces":                 {443, split(hello("good.example"), 100), ""},
		"TLS in records":                {443, []string{records(hello("good.example"), 50)}, ""},
		"TLS for another host":          {443, []string{hello("evil.example")}, RuleServerName},
		"TLS below":                     {443, []string{hello("x.good.example")}, RuleServerName},
		"TLS for another in pieces":     {443, split(hello("evil.example"), 100), RuleServerName},
		"TLS for another in records":    {443, []string{records(hello("evil.example"), 3)}, RuleServerName},
		"TLS for another on port 80":    {80, []string{hello("evil.example")}, RuleServerName},
		"a longer hello than there are": {443, []string{"\x16\x03\x01\x40\x00\x01\x00\xff\xff" + strings.Repeat("x", 20000)}, RuleServerName},
		"a hello that ends early":       {443, []string{hello("good.example")[:100]}, RuleServerName},
		"no hello":                      {443, []string{"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00"}, RuleServerName},
		"HTTP":                          {80, []string{"GET / HTTP/1.1\r\nHost: good.example\r\n\r\nrest"}, ""},
		"HTTP with a port":              {80, []string{"GET / HTTP/1.1\r\nhost:Good.Example:80\r\n\r\n"}, ""},
		"HTTP without a host":           {80, []string{"GET / HTTP/1.0\r\n\r\n"}, ""},
		"HTTP in pieces":                {80, []string{"G", "ET / HT", "TP/1.1\r", "\nHost: good.ex", "ample\r\n\r", "\n"}, ""},
		"HTTP for another host":         {80, []string{"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"}, RuleHostHeader},
		"HTTP for another in pieces":    {80, []string{"GET / HTTP/1.1\r\nHost: ", "evil.example\r\n\r\n"}, RuleHostHeader},
		"HTTP for another on port 443":  {443, []string{"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"}, RuleHostHeader},
		"HTTP for two hosts":            {80, []string{"GET / HTTP/1.1\r\nHost: good.example\r\nHost: evil.example\r\n\r\n"}, RuleHostHeader},
		"HTTP as to a proxy":            {80, []string{"GET http://evil.example/ HTTP/1.1\r\nHost: good.example\r\n\r\n"}, RuleHostHeader},
		"HTTP CONNECT":                  {80, []string{"CONNECT evil.example:443 HTTP/1.1\r\nHost: good.example\r\n\r\n"}, RuleHostHeader},
		"HTTP after empty lines":        {80, []string{"\r\n\r\nGET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"}, RuleHostHeader},
		"HTTP with a folded line":       {80, []string{"GET / HTTP/1.1\r\nHost:\r\n evil.example\r\n\r\n"}, RuleHostHeader},
		"HTTP with tabs":                {80, []string{"GET\t/\tHTTP/1.1\r\nHost: evil.example\r\n\r\n"}, RuleHostHeader},
		"HTTP/2":                        {80, []string{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}, RuleHostHeader},
		"a head without an end":         {80, []string{"GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 20000)}, RuleHostHeader},
		"another protocol":              {443, []string{"SSH-2.0-x\r\n"}, ""},
		"bytes":                         {443, []string{"\x00\x01\x02"}, ""},
		"nothing":                       {443, nil, ""},
	} {
		c1 := l.mustConnect(netip.AddrPortFrom(good, c.port))
		want := strings.Join(c.first, "")
		for _, b := range c.first {
			_, _ = c1.Write([]byte(b))
		}
		_ = c1.CloseWrite()
		_ = c1.SetReadDeadline(time.Now().Add(patience))
		_, err := c1.Read(make([]byte, 1))
		got := <-heard
		if c.rule == "" {
			if err != io.EOF || got != want {
				t.Errorf("%s: the host hears %q of %q, and the guest %v", name, got, want, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), "reset") || got != "" {
			t.Errorf("%s: the host hears %q, and the guest: %v", name, got, err)
		}
		e := l.event(func(e Event) bool { return e.Rule == c.rule })
		if e.Allowed || e.Name != "good.example" || e.Sent != 0 {
			t.Errorf("%s is logged as %+v", name, e)
		}
		l.mu.Lock()
		l.events = nil
		l.mu.Unlock()
	}
}

func TestAClientThatIsSlowToNameItsHostIsReset(t *testing.T) {
	l := newLab(t, allow(t, "good.example"), resolver(zone{"good.example": {"93.184.215.14"}}), func(c *Config) { c.openingTimeout = time.Millisecond })
	l.listen(443, serveSpeed)
	a := netip.AddrPortFrom(l.address("good.example"), 443)
	idle := l.mustConnect(a)
	slow := l.mustConnect(a)
	_, _ = slow.Write([]byte("\x16\x03"))
	if _, err := slow.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("a hello that does not go on: %v", err)
	}
	// One that has said nothing yet may take its time, as browsers do.
	_, _ = idle.Write([]byte("e\n"))
	if _, err := io.ReadFull(idle, make([]byte, 1)); err != nil {
		t.Errorf("a connection that waited: %v", err)
	}
}

func TestAHostMaySpeakFirst(t *testing.T) {
	l := newLab(t, allow(t, "good.example"), resolver(zone{"good.example": {"93.184.215.14"}}))
	l.listen(443, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = c.Write([]byte("220 hello\r\n"))
		line, _ := bufio.NewReader(c).ReadString('\n')
		_, _ = c.Write([]byte("got " + line))
	})
	c := l.mustConnect(netip.AddrPortFrom(l.address("good.example"), 443))
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); line != "220 hello\r\n" || err != nil {
		t.Fatalf("the guest reads %q, %v", line, err)
	}
	_, _ = c.Write([]byte("EHLO me\r\n"))
	if line, err := r.ReadString('\n'); line != "got EHLO me\r\n" || err != nil {
		t.Errorf("the guest reads %q, %v", line, err)
	}
}

func TestOtherDNSServersAreNotReached(t *testing.T) {
	l := newLab(t, allow(t, "good.example:*"), resolver(zone{"good.example": {"93.184.215.14"}}))
	for _, a := range []string{"8.8.8.8:53", "1.1.1.1:853", "1.1.1.1:443", "93.184.215.14:443"} {
		if _, err := l.connect(netip.MustParseAddrPort(a)); err == nil || !strings.Contains(err.Error(), "no route to host") {
			t.Errorf("%s: %v", a, err)
		}
	}
	if _, dialed := l.seen(); len(dialed) > 0 {
		t.Errorf("the host dialled %v", dialed)
	}
}

func TestNamesAreForgottenButNotThoseInUse(t *testing.T) {
	table := newNameTable()
	table.pin([]string{"pinned.example"})
	pinned, _ := table.address("pinned.example")
	used, _ := table.address("used.example")
	release := table.hold(used)
	first, _ := table.address("n0.example")
	for i := range 2 * maxNames {
		if _, ok := table.address(fmt.Sprintf("n%d.example", i)); !ok {
			t.Fatal("there is no address left")
		}
	}
	if table.name(pinned) != "pinned.example" || table.name(used) != "used.example" || table.name(first) == "n0.example" {
		t.Errorf("the names are %q, %q and %q", table.name(pinned), table.name(used), table.name(first))
	}
	if len(table.byName) != maxNames || len(table.byAddr) != maxNames {
		t.Errorf("there are %d names of %d addresses", len(table.byName), len(table.byAddr))
	}
	release()
	for i := range maxNames {
		table.address(fmt.Sprintf("m%d.example", i))
	}
	if table.name(used) == "used.example" {
		t.Error("a name is kept after its use")
	}
	if again, _ := newNameTable().address("used.example"); again != used {
		t.Errorf("another table has %s for a name, not %s", again, used)
	}
	table.pin([]string{"other.example"})
	for i := range 2 * maxNames {
		table.address(fmt.Sprintf("k%d.example", i))
	}
	if other, _ := table.address("other.example"); table.name(pinned) == "pinned.example" || table.name(other) != "other.example" {
		t.Error("a name is pinned for longer than it is asked for, or not at all")
	}
}

func TestAFullNameTableTakesNoMore(t *testing.T) {
	var names []string
	for i := range maxNames {
		names = append(names, fmt.Sprintf("n%d.example", i))
	}
	table := newNameTable()
	table.pin(names)
	if a, ok := table.address("more.example"); ok {
		t.Errorf("it has the address %s", a)
	}
}

func TestFloodsOfAnAllowlistAreBounded(t *testing.T) {
	const frames = 5000
	asked := stuck{asked: make(chan string, 4*frames), free: make(chan struct{})}
	close(asked.free)
	l := newBareLab(t, blackHole, allow(t, "*.example:*"), func(c *Config) {
		c.Resolver = asked
		c.Log = nil
	})
	l.barrier()
	answers := l.drainSocket()
	check := watch(t, 64<<20)
	from := func(i int) netip.AddrPort { return netip.AddrPortFrom(Guest, uint16(1024+i)) }
	for i := range frames {
		l.sendIP(udpDatagram(from(i), netip.AddrPortFrom(DNS, 53), query(fmt.Sprintf("n%d.example", i), dnsmessage.TypeA, 0)))
	}
	check("after names")
	for i := range frames {
		addr, _ := l.network.table.address(fmt.Sprintf("n%d.example", i))
		l.sendIP(tcpSegment(from(i), netip.AddrPortFrom(addr, 443), header.TCPFlagSyn))
	}
	check("after SYNs to names that do not answer")
	l.network.table.mu.Lock()
	if n := len(l.network.table.byName); n > maxNames {
		t.Errorf("there are %d names", n)
	}
	l.network.table.mu.Unlock()
	for i := range frames {
		l.sendIP(tcpSegment(from(i), netip.AddrPortFrom(public, 443), header.TCPFlagSyn))
	}
	check("after SYNs to addresses")
	if counts := answers(); counts[prohibited] == 0 {
		t.Errorf("what is refused is not told: %v", counts)
	}
}

func BenchmarkConnectByName(b *testing.B) {
	l := newLab(b, allow(b, "good.example:22"), resolver(zone{"good.example": {"93.184.215.14"}}))
	l.listen(22, serveSpeed)
	a := netip.AddrPortFrom(l.address("good.example"), 22)
	connectAndAsk(b, l, a)
}

func TestDialPolicyOfAnAllowlist(t *testing.T) {
	var c Config
	allow(t, "good.example:*", "10.0.0.0/8")(&c)
	c.Allow.Public = &policy.Policy{Host: HostAddresses}
	listener := listenLocal(t)
	defer listener.Close()
	_, err := DialPolicy(c.Allow.Dialed)(context.Background(), policy.TCP, listener.Addr().(*net.TCPAddr).AddrPort())
	if err == nil || !strings.Contains(err.Error(), policy.RuleLoopback) {
		t.Errorf("the host's own address is dialled: %v", err)
	}
}

// Names are a way to send data to whoever owns a domain.
func TestNamesDoNotCarryMuch(t *testing.T) {
	var mu sync.Mutex
	carried := 0
	l := newLab(t, allow(t, "*.evil.example", "good.example"), func(c *Config) {
		c.Resolver = lookup(func(host string) ([]netip.Addr, error) {
			mu.Lock()
			defer mu.Unlock()
			carried += len(host)
			return []netip.Addr{public}, nil
		})
	})
	known := l.address("known.evil.example")
	for i := range 500 {
		l.ask(fmt.Sprintf("%s%d.evil.example", strings.Repeat("x", 50), i), dnsmessage.TypeA, 0)
	}
	l.event(func(e Event) bool { return e.Rule == RuleSpelling && !e.Allowed })
	for i := range 50 {
		l.get("POST", fmt.Sprintf("http://%s/?form=destination=%s%d.evil.example", network.PolicyName, strings.Repeat("y", 50), i), "")
	}
	mu.Lock()
	if carried > spellingBurst+spellingRate*60 {
		t.Errorf("the names have %d bytes", carried)
	}
	mu.Unlock()
	if again := l.address("known.evil.example"); again != known {
		t.Errorf("a known name has the address %s, and now %s", known, again)
	}
	l.address("good.example")
}

type lookup func(host string) ([]netip.Addr, error)

func (f lookup) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) { return f(host) }
