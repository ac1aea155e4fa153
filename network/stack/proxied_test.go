package stack

import (
	"bufio"
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
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/network/authority"
	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/sourcery-zone/sandbox/network/proxy"
)

// proxied gives a network a proxy of which the guest believes what guest has, and which believes what host has.
func proxied(t testing.TB, guest, host *authority.Authority) option {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(host.Certificate())
	p := proxy.New(proxy.Options{Authority: guest, Roots: roots})
	t.Cleanup(func() { p.Close() })
	return func(c *Config) { c.Proxy = p }
}

func newAuthority(t testing.TB) *authority.Authority {
	t.Helper()
	a, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// fetch has the guest ask for a URL, and returns the answer's status, its text, and who vouched for the host.
func (l *lab) fetch(address string, trusted *authority.Authority) (status int, text string, by string, err error) {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(trusted.Certificate())
	t := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool},
		DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
			name, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			var number uint16
			if _, err := fmt.Sscan(port, &number); err != nil {
				return nil, err
			}
			return l.connect(netip.AddrPortFrom(l.address(name), number))
		},
	}
	defer t.CloseIdleConnections()
	r, err := (&http.Client{Transport: t, Timeout: patience}).Get(address)
	if err != nil {
		return 0, "", "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if r.TLS != nil {
		by = r.TLS.PeerCertificates[0].Issuer.CommonName
	}
	return r.StatusCode, string(b), by, err
}

func TestARuleForRequestsOpensTheseAndNoOthers(t *testing.T) {
	internet, own := newAuthority(t), newAuthority(t)
	l := newLab(t, allow(t, "https://api.example.com/v1/**", "http://api.example.com/v1/**", "plain.example", "https://rebind.example/**"),
		proxied(t, own, internet), resolver(zone{"api.example.com": {public.String()}, "plain.example": {public.String()}, "rebind.example": {"10.0.0.1"}}))
	serve := func(port uint16) {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host, r.URL) }))
		s.TLS = &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return internet.Leaf(hello.ServerName) }}
		if port == 443 {
			s.StartTLS()
		} else {
			s.Start()
		}
		t.Cleanup(s.Close)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.services[netip.AddrPortFrom(public, port)] = s.Listener.Addr().(*net.TCPAddr).AddrPort()
	}
	serve(443)
	serve(80)
	issuer := func(a *authority.Authority) string {
		leaf, err := a.Leaf("x.example")
		if err != nil {
			t.Fatal(err)
		}
		return leaf.Leaf.Issuer.CommonName
	}
	for _, c := range []struct {
		address string
		trusted *authority.Authority
		status  int
		text    string
		by      string
	}{
		{"https://api.example.com/v1/x?y", own, 200, "api.example.com/v1/x?y", issuer(own)},
		{"https://api.example.com/v2/x?y", own, 403, policy.RuleNotAllowed, issuer(own)},
		{"http://api.example.com/v1/x", own, 200, "api.example.com/v1/x", ""},
		{"http://api.example.com/v2/x", own, 403, policy.RuleNotAllowed, ""},
		{"https://plain.example/any", internet, 200, "plain.example/any", issuer(internet)}, // nobody opens what is open
	} {
		status, text, by, err := l.fetch(c.address, c.trusted)
		if err != nil || status != c.status || !strings.Contains(text, c.text) || by != c.by {
			t.Errorf("%s: %d %q by %q, %v; want %+v", c.address, status, text, by, err, c)
		}
	}
	if e := l.event(func(e Event) bool { return e.Request == "GET /v2/x" }); e.Allowed || e.Proto != "http" || e.Name != "api.example.com" || e.Rule != policy.RuleNotAllowed {
		t.Errorf("a request that was refused is logged as %+v", e)
	}
	if e := l.event(func(e Event) bool { return e.Proto == "tcp" && e.Received > 0 }); !e.Allowed || e.Sent == 0 {
		t.Errorf("a connection is logged as %+v", e)
	}
	if _, _, _, err := l.fetch("https://plain.example/any", own); err == nil {
		t.Error("a host that is open has another certificate than its own")
	}
	if _, _, _, err := l.fetch("https://rebind.example/", own); err == nil {
		t.Error("a name that leads to a closed address is reached")
	}
	if _, _, _, err := l.fetch("https://api.example.com/v1/", internet); err == nil {
		t.Error("a client that does not trust the authority goes on")
	}
	l.event(func(e Event) bool { return e.Proto == "tcp" && !e.Allowed && e.Rule == proxy.RuleNotTrusted })
}

func TestConnectionsThatAreReadAreBounded(t *testing.T) {
	internet, own := newAuthority(t), newAuthority(t)
	l := newLab(t, allow(t, "http://api.example.com/**"), proxied(t, own, internet), resolver(zone{"api.example.com": {public.String()}}))
	l.listen(80, func(c *net.TCPConn) {
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	})
	at := netip.AddrPortFrom(l.address("api.example.com"), 80)
	var open []net.Conn
	for range proxy.MaxConnections {
		open = append(open, l.mustConnect(at))
	}
	if c, err := l.connect(at); err == nil {
		c.Close()
		t.Error("there is one more than there may be")
	}
	if e := l.event(func(e Event) bool { return !e.Allowed }); e.Rule != RuleLimit {
		t.Errorf("the one beyond is logged as %+v", e)
	}
	open[0].Close()
	l.event(func(e Event) bool { return e.Allowed && e.Proto == "tcp" })
	l.mustConnect(at)
}

func TestRulesForRequestsNeedAProxy(t *testing.T) {
	ours, guests, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer guests.Close()
	r, err := policy.ParseRule("https://api.example.com/**")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := New(Config{Link: ours, MTU: MaxMTU, Allow: &policy.Allowlist{Rules: []policy.Rule{r}, Public: &policy.Policy{}}}); err == nil {
		n.Close()
		t.Error("a network without a proxy opens all of a host of which a part is open")
	}
}

func TestRulesForRequestsComeAndGo(t *testing.T) {
	own := newAuthority(t)
	l := newLab(t, allow(t, "api.example.com"), proxied(t, own, own), resolver(zone{"api.example.com": {public.String()}}))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL) }))
	t.Cleanup(s.Close)
	l.mu.Lock()
	l.services[netip.AddrPortFrom(public, 80)] = netip.MustParseAddrPort(s.Listener.Addr().String())
	l.mu.Unlock()
	gets := func(path string, want int) {
		t.Helper()
		if status, text, _, err := l.fetch("http://api.example.com"+path, own); err != nil || status != want {
			t.Errorf("%s is answered %d, %q, %v, want %d", path, status, text, err, want)
		}
	}
	open := l.mustConnect(netip.AddrPortFrom(l.address("api.example.com"), 80))
	gets("/v2", 200)

	// A connection on which nobody has read the requests ends when they are to be judged.
	l.setRules([]string{"http://api.example.com/v1/**"}, nil)
	if _, err := open.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a connection from before ends with %v", err)
	}
	gets("/v1/x", 200)
	gets("/v2", 403)

	// One whose requests are judged goes on, by the rules that there are.
	read := l.mustConnect(netip.AddrPortFrom(l.address("api.example.com"), 80))
	in := bufio.NewReader(read)
	asks := func(want int) {
		t.Helper()
		fmt.Fprint(read, "GET /v2 HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if _, err := io.Copy(io.Discard, r.Body); err != nil || r.StatusCode != want {
			t.Errorf("it is answered %s, %v, want %d", r.Status, err, want)
		}
	}
	asks(403)
	l.setRules([]string{"http://api.example.com/v1/**", "http://api.example.com/v2"}, nil)
	asks(200)
	l.setRules([]string{"http://api.example.com/v1/**"}, nil)
	asks(403)
	l.setRules([]string{"http://api.example.com/**"}, []string{"api.example.com"})
	if _, err := in.ReadByte(); err == nil {
		t.Error("a connection to a host that is denied goes on")
	}
	gets("/v1/x", 403)
	if e := l.event(func(e Event) bool { return e.Rule == "deny api.example.com" }); e.Allowed {
		t.Errorf("it is logged as %+v", e)
	}

	bare := newLab(t, allow(t, "api.example.com"))
	rule, err := policy.ParseRule("http://api.example.com/**")
	if err != nil {
		t.Fatal(err)
	}
	if err := bare.network.SetRules(Config{Allow: &policy.Allowlist{Public: bare.config.Policy, Rules: []policy.Rule{rule}}}); err == nil {
		t.Error("a network without a proxy takes rules for requests")
	}
	if err := bare.network.SetProxy(l.config.Proxy); err != nil {
		t.Fatal(err)
	}
	bare.setRules([]string{"http://api.example.com/**"}, nil)
	if err := bare.network.SetProxy(l.config.Proxy); err == nil {
		t.Error("the proxy is exchanged")
	}
}
