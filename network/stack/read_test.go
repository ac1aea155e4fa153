package stack

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/authority"
	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/sourcery-zone/sandbox/network/secret"
	"golang.org/x/net/dns/dnsmessage"
)

func reads(hosts ...secret.Host) option { return func(c *Config) { c.Read = hosts } }

// serveTLS makes a server of HTTP over TLS at a port of the public address, for which an authority vouches. It answers with
// what was asked for.
func (l *lab) serveTLS(port uint16, by *authority.Authority) {
	l.t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host, r.URL) }))
	s.TLS = &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return by.Leaf(hello.ServerName) }}
	s.StartTLS()
	l.t.Cleanup(s.Close)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.services[netip.AddrPortFrom(public, port)] = s.Listener.Addr().(*net.TCPAddr).AddrPort()
}

// echoes makes a service at a port of the public address that answers with what it is sent.
func (l *lab) echoes(port uint16) {
	l.t.Helper()
	l.listen(port, func(c *net.TCPConn) {
		_, _ = io.Copy(c, c)
		c.Close()
	})
}

// says sends a text, and returns as much of what comes back.
func (l *lab) says(a netip.AddrPort, text string) string {
	l.t.Helper()
	c := l.mustConnect(a)
	if _, err := io.WriteString(c, text); err != nil {
		l.t.Fatal(err)
	}
	b := make([]byte, len(text))
	k, _ := io.ReadFull(c, b)
	return string(b[:k])
}

// vouches finds out who vouches for a host at an address.
func (l *lab) vouches(a netip.AddrPort, name string, trusted *authority.Authority) error {
	l.t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(trusted.Certificate())
	c := tls.Client(l.mustConnect(a), &tls.Config{RootCAs: pool, ServerName: name})
	defer c.Close()
	return c.Handshake()
}

func TestInThePublicNetworkAHostThatIsReadIsReachedByItsName(t *testing.T) {
	internet, own := newAuthority(t), newAuthority(t)
	l := newLab(t, proxied(t, own, internet), reads(
		secret.Host{Name: "api.example.com", Port: 443}, secret.Host{Name: "api.example.com", Port: 8443},
		secret.Host{Name: "lan.example.com", Port: 443}, secret.Host{Name: "gone.example.com", Port: 443}, secret.Host{Name: "mixed.example.com", Port: 443},
	), resolver(zone{
		"api.example.com": {public.String(), "2606:2800::1"}, "other.example.com": {public.String()}, "x.api.example.com": {public.String()},
		"lan.example.com": {"10.0.0.1"}, "mixed.example.com": {"10.0.0.1", public.String()},
	}))
	l.serveTLS(443, internet)
	l.serveTLS(8443, internet)
	l.echoes(22)
	l.echoes(80)
	for _, c := range []struct {
		name  string
		kind  dnsmessage.Type
		rcode dnsmessage.RCode
		why   string
		want  string
	}{
		{"API.example.com", dnsmessage.TypeA, dnsmessage.RCodeSuccess, "", "a name's"},
		{"mixed.example.com", dnsmessage.TypeA, dnsmessage.RCodeSuccess, "", "a name's"},
		{"api.example.com", dnsmessage.TypeAAAA, dnsmessage.RCodeSuccess, "", ""},
		{"api.example.com", typeHTTPS, dnsmessage.RCodeSuccess, "", ""},
		{"lan.example.com", dnsmessage.TypeA, dnsmessage.RCodeNameError, closedWhy, ""},
		{"lan.example.com", dnsmessage.TypeAAAA, dnsmessage.RCodeNameError, closedWhy, ""},
		{"gone.example.com", dnsmessage.TypeA, dnsmessage.RCodeNameError, "", ""},
		{"other.example.com", dnsmessage.TypeA, dnsmessage.RCodeSuccess, "", public.String()},
		{"x.api.example.com", dnsmessage.TypeA, dnsmessage.RCodeSuccess, "", public.String()},
	} {
		m := l.ask(c.name, c.kind, 1232)
		got := strings.Join(texts(m), " ")
		if a, err := netip.ParseAddr(got); err == nil && policy.NameAddresses.Contains(a) {
			got = "a name's"
		}
		if m.RCode != c.rcode || got != c.want || explanation(m) != c.why {
			t.Errorf("%s %s: %s %q, %q, want %+v", c.name, c.kind, m.RCode, got, explanation(m), c)
		}
	}

	for _, c := range []struct {
		address string
		trusted *authority.Authority
	}{
		{"https://api.example.com/x?y", own},
		{"https://api.example.com:8443/x", own},
		{"https://mixed.example.com/x", own},
		{"https://other.example.com/x", internet},
		{"https://x.api.example.com/x", internet},
	} {
		if status, text, _, err := l.fetch(c.address, c.trusted); err != nil || status != 200 || "https://"+text != c.address {
			t.Errorf("%s: %d %q, %v", c.address, status, text, err)
		}
	}
	api := l.address("api.example.com")
	if e := l.event(func(e Event) bool { return e.Proto == "tcp" && e.Addr == netip.AddrPortFrom(api, 443) }); !e.Allowed || e.Rule != policy.RulePublic || e.Name != "api.example.com" || e.Received == 0 {
		t.Errorf("a connection that was read is logged as %+v", e)
	}
	// A client that knows the address from elsewhere is let through, and nothing of it is read.
	if err := l.vouches(netip.AddrPortFrom(public, 443), "api.example.com", internet); err != nil {
		t.Errorf("the host's own address: %v", err)
	}
	if err := l.vouches(netip.AddrPortFrom(api, 443), "other.example.com", own); err == nil {
		t.Error("the address of one name serves another one")
	}
	// So are other ports, whatever is said there.
	for _, port := range []uint16{22, 80} {
		const text = "GET / HTTP/1.1\r\nHost: other.example.com\r\n\r\n"
		if got := l.says(netip.AddrPortFrom(api, port), text); got != text {
			t.Errorf("port %d answers %q", port, got)
		}
	}
	l.listenPackets(123, func(b []byte) []byte { return b })
	c := l.packetConn(netip.AddrPortFrom(api, 123))
	b := make([]byte, 8)
	if _, err := c.Write([]byte("time")); err != nil {
		t.Fatal(err)
	}
	if k, err := c.Read(b); err != nil || string(b[:k]) != "time" {
		t.Errorf("a datagram is answered %q, %v", b[:k], err)
	}
	l.isRefused(<-l.connecting(netip.MustParseAddrPort("198.18.7.7:443"))) // which is no name's
	if _, dialed := l.seen(); slices.ContainsFunc(dialed, func(a netip.AddrPort) bool { return a.Addr() != public }) {
		t.Errorf("the host has dialled %v", dialed)
	}
}

func TestWhatCannotBeReadIsRefusedOnTheWire(t *testing.T) {
	own := newAuthority(t)
	l := newBareLab(t, proxied(t, own, own), reads(secret.Host{Name: "api.example.com", Port: 443}), resolver(zone{"api.example.com": {public.String()}}))
	l.barrier()
	api, _ := l.network.table.address("api.example.com")
	from, to := netip.AddrPortFrom(Guest, 4000), netip.AddrPortFrom(api, 443)
	l.refuses(to, RuleUnread, closedPacket{udpDatagram(from, to, []byte("quic")), prohibited}, closedPacket{echoRequest(api), prohibited})
}

func TestRulesOfThePublicNetworkCloseAHostThatIsRead(t *testing.T) {
	internet, own := newAuthority(t), newAuthority(t)
	l := newLab(t, proxied(t, own, internet), reads(secret.Host{Name: "api.example.com", Port: 443}), resolver(zone{"api.example.com": {public.String()}}))
	l.serveTLS(443, internet)
	l.echoes(22)
	api := l.address("api.example.com")
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(own.Certificate())
	open := tls.Client(l.mustConnect(netip.AddrPortFrom(api, 443)), &tls.Config{RootCAs: pool, ServerName: "api.example.com"})
	if err := open.Handshake(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(open, "GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := open.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}

	l.setRules(nil, []string{"93.184.0.0/16:443"})
	_ = open.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, open); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a connection goes on to an address that is denied")
	}
	l.isRefused(<-l.connecting(netip.AddrPortFrom(api, 443)))
	if got := l.says(netip.AddrPortFrom(api, 22), "x"); got != "x" {
		t.Errorf("a port that is not denied answers %q", got)
	}
	if e := l.event(func(e Event) bool { return e.Addr.Port() == 443 && e.Received == 0 && !e.Allowed }); e.Rule != "deny 93.184.0.0/16:443" {
		t.Errorf("what is denied is logged as %+v", e)
	}

	l.setRules(nil, []string{"93.184.0.0/16"})
	if m := l.ask("api.example.com", dnsmessage.TypeA, 1232); m.RCode != dnsmessage.RCodeNameError || explanation(m) != closedWhy {
		t.Errorf("a name that leads to nothing open: %s, %v", m.RCode, texts(m))
	}
	l.isRefused(<-l.connecting(netip.AddrPortFrom(api, 22)))

	l.setRules(nil, nil)
	if status, _, _, err := l.fetch("https://api.example.com/", own); err != nil || status != 200 {
		t.Errorf("after the rules have gone: %d, %v", status, err)
	}
}

func TestAnAllowlistOpensAHostThatIsRead(t *testing.T) {
	internet, own := newAuthority(t), newAuthority(t)
	l := newLab(t, allow(t, "api.example.com", "*.wild.example:443", "wild.example:443/udp", "https://part.example/v1/**", "93.184.215.0/24:8443", "rebind.example"),
		proxied(t, own, internet), reads(
			secret.Host{Name: "api.example.com", Port: 443}, secret.Host{Name: "a.wild.example", Port: 443}, secret.Host{Name: "wild.example", Port: 443},
			secret.Host{Name: "part.example", Port: 443}, secret.Host{Name: "closed.example", Port: 443}, secret.Host{Name: "rebind.example", Port: 443},
		), resolver(zone{
			"api.example.com": {public.String()}, "a.wild.example": {public.String()}, "b.wild.example": {public.String()}, "wild.example": {public.String()},
			"part.example": {public.String()}, "closed.example": {public.String()}, "rebind.example": {"10.0.0.1"},
		}))
	l.serveTLS(443, internet)
	l.serveTLS(8443, internet)
	for _, c := range []struct {
		address string
		trusted *authority.Authority
		status  int
	}{
		{"https://api.example.com/x", own, 200},
		{"https://api.example.com/a//b/..%2f", own, 200}, // all of the host is open, whatever a server makes of a path
		{"https://a.wild.example/x", own, 200},
		{"https://b.wild.example/x", internet, 200},
		{"https://part.example/v1/x", own, 200},
		{"https://part.example/v2/x", own, 403},
	} {
		if status, text, _, err := l.fetch(c.address, c.trusted); err != nil || status != c.status {
			t.Errorf("%s: %d %q, %v, want %d", c.address, status, text, err, c.status)
		}
	}
	if err := l.vouches(netip.AddrPortFrom(public, 8443), "api.example.com", internet); err != nil {
		t.Errorf("an address that a rule opens: %v", err)
	}
	for name, rule := range map[string]string{"closed.example": policy.RuleNotAllowed, "wild.example": policy.RuleNotAllowed, "rebind.example": policy.RulePrivate} {
		l.isRefused(<-l.connecting(netip.AddrPortFrom(l.address(name), 443)))
		if e := l.event(func(e Event) bool { return e.Proto == "tcp" && e.Name == name }); e.Allowed || e.Rule != rule {
			t.Errorf("%s is logged as %+v, want %s", name, e, rule)
		}
	}
	if _, err := l.packetConn(netip.AddrPortFrom(l.address("wild.example"), 443)).Write([]byte("quic")); err != nil {
		t.Fatal(err)
	}
	if e := l.event(func(e Event) bool { return e.Proto == "udp" }); e.Allowed || e.Rule != RuleUnread {
		t.Errorf("UDP at the port of requests is logged as %+v", e)
	}

	l.setRules([]string{"*.example.com"}, []string{"api.example.com:443"})
	l.isRefused(<-l.connecting(netip.AddrPortFrom(l.address("api.example.com"), 443)))
	l.setRules([]string{"*.example.com"}, nil)
	if status, _, _, err := l.fetch("https://api.example.com/x", own); err != nil || status != 200 {
		t.Errorf("by another rule: %d, %v", status, err)
	}
}

func TestAHostThatIsReadIsSoWhoeverOpensIt(t *testing.T) {
	internet, own := newAuthority(t), newAuthority(t)
	asked, ask := asks()
	l := newLab(t, allow(t), ask, proxied(t, own, internet), reads(secret.Host{Name: "api.example.com", Port: 443}), resolver(zone{"api.example.com": {public.String()}}))
	l.serveTLS(443, internet)
	fetched := func() <-chan error {
		done := make(chan error, 1)
		go func() {
			status, text, _, err := l.fetch("https://api.example.com/x", own)
			if err == nil && status != 200 {
				err = fmt.Errorf("it is answered %d %q", status, text)
			}
			done <- err
		}()
		return done
	}
	once := fetched()
	if err := l.network.AllowOnce(asked.next(t).ID); err != nil {
		t.Fatal(err)
	}
	asked.next(t)
	if err := <-once; err != nil {
		t.Errorf("once: %v", err)
	}
	sandbox := fetched()
	asked.next(t)
	l.setRules([]string{"api.example.com"}, nil)
	if err := <-sandbox; err != nil {
		t.Errorf("from now on: %v", err)
	}
	if err := <-fetched(); err != nil {
		t.Errorf("after that: %v", err)
	}
}

func TestAProxyIsToldTheAddressOfAHostThatIsRead(t *testing.T) {
	own := newAuthority(t)
	p := newProxy(t, "")
	l := newLab(t, p.use(t), proxied(t, own, own), reads(secret.Host{Name: "api.example.com", Port: 443}),
		resolver(zone{"api.example.com": {"10.0.0.1", "93.184.216.34"}}))
	a := netip.AddrPortFrom(l.address("api.example.com"), 22)
	if got, err := io.ReadAll(l.mustConnect(a)); err != nil || string(got) != "by way of the proxy to 93.184.216.34:22" {
		t.Errorf("got %q, %v", got, err)
	}
	l.setRules(nil, []string{"93.184.0.0/16"})
	l.isRefused(<-l.connecting(a))
	if got := p.seen(); len(got) != 1 {
		t.Errorf("the proxy was to connect to %v", got)
	}
}

func TestCheckKnowsTheHostsThatAreRead(t *testing.T) {
	z := zone{"api.example": {"93.184.215.14"}, "lan.example": {"192.168.1.1"}, "part.example": {"93.184.215.14"}}
	for _, tt := range []struct {
		mode        network.Mode
		allow, deny []string
		host        string
		port        uint16
		proto       policy.Proto
		want        Answer
	}{
		{mode: network.ModePublic, host: "api.example.", want: Answer{Verdict: policy.Verdict{Allow: true, Rule: policy.RulePublic}, Addr: public, Read: true}},
		{mode: network.ModePublic, host: "api.example", port: 22, want: Answer{Verdict: policy.Verdict{Allow: true, Rule: policy.RulePublic}, Addr: public}},
		{mode: network.ModePublic, host: "api.example", proto: policy.UDP, want: Answer{Verdict: policy.Verdict{Rule: RuleUnread}}},
		{mode: network.ModePublic, host: public.String(), want: Answer{Verdict: policy.Verdict{Allow: true, Rule: policy.RulePublic}, Addr: public}},
		{mode: network.ModePublic, host: "lan.example", want: Answer{Verdict: policy.Verdict{Rule: policy.RulePrivate}, Addr: netip.MustParseAddr("192.168.1.1"), Opens: "192.168.1.1"}},
		{mode: network.ModePublic, allow: []string{"192.168.1.0/24:443"}, host: "lan.example", want: Answer{Verdict: policy.Verdict{Allow: true, Rule: "192.168.1.0/24:443"}, Addr: netip.MustParseAddr("192.168.1.1"), Read: true}},
		{mode: network.ModePublic, deny: []string{"93.184.0.0/16"}, host: "api.example", want: Answer{Verdict: policy.Verdict{Rule: "deny 93.184.0.0/16"}, Addr: public}},
		{mode: network.ModeAllowlist, host: "api.example", want: Answer{Verdict: policy.Verdict{Rule: policy.RuleNotAllowed}, Opens: "api.example"}},
		{mode: network.ModeAllowlist, allow: []string{"*.example"}, host: "api.example", want: Answer{Verdict: policy.Verdict{Allow: true, Rule: "*.example"}, Addr: public, Read: true}},
		{mode: network.ModeAllowlist, allow: []string{"https://part.example/v1/**"}, host: "part.example", want: Answer{Verdict: policy.Verdict{Allow: true, Rule: "https://part.example/v1/**", Requests: true}, Addr: public, Read: true}},
		{mode: network.ModeAllowlist, allow: []string{"api.example:443/udp"}, host: "api.example", proto: policy.UDP, want: Answer{Verdict: policy.Verdict{Rule: RuleUnread}}},
		{mode: network.ModeAllowlist, allow: []string{"*.example"}, deny: []string{"api.example"}, host: "api.example", want: Answer{Verdict: policy.Verdict{Rule: "deny api.example"}}},
		{mode: network.ModeAsk, host: "api.example", want: Answer{Verdict: policy.Verdict{Rule: policy.RuleNotAllowed}, Opens: "api.example", Asks: true, Read: true}},
	} {
		c, err := ConfigOf(tt.mode, tt.allow, tt.deny)
		if err != nil {
			t.Fatal(err)
		}
		c.Resolver = z
		for name := range z {
			c.Read = append(c.Read, secret.Host{Name: name, Port: 443})
		}
		if tt.port == 0 {
			tt.port = 443
		}
		if tt.proto == "" {
			tt.proto = policy.TCP
		}
		if got, err := Check(context.Background(), c, tt.host, tt.port, tt.proto); err != nil || got != tt.want {
			t.Errorf("%s, %v, %v: %s:%d/%s: %+v, %v, want %+v", tt.mode, tt.allow, tt.deny, tt.host, tt.port, tt.proto, got, err, tt.want)
		}
	}
}

func TestANetworkThatCannotReadItsHostsIsNone(t *testing.T) {
	own := newAuthority(t)
	var c Config
	proxied(t, own, own)(&c)
	for name, tt := range map[string]struct {
		config Config
		want   string
	}{
		"api.example.com":       {Config{}, "needs a proxy"},
		"host.sandbox.internal": {c, "not the name of a host"},
		"93.184.215.14":         {c, "not the name of a host"},
	} {
		ours, guests, err := Pair()
		if err != nil {
			t.Fatal(err)
		}
		tt.config.Link, tt.config.MTU, tt.config.Policy, tt.config.Read = ours, MaxMTU, &policy.Policy{}, []secret.Host{{Name: name, Port: 443}}
		n, err := New(tt.config)
		if err == nil {
			n.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		ours.Close()
		guests.Close()
	}
}
