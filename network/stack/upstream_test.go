package stack

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/sourcery-zone/sandbox/network/upstream"
	"golang.org/x/net/dns/dnsmessage"
)

// testProxy is one of HTTP, which says to what it was to connect.
type testProxy struct {
	settings upstream.Settings

	mu    sync.Mutex
	asked []string
}

func newProxy(t *testing.T, none string) *testProxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	p := &testProxy{settings: upstream.One("http://" + l.Addr().String())}
	p.settings.None = none
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				p.mu.Lock()
				p.asked = append(p.asked, r.RequestURI)
				p.mu.Unlock()
				if strings.HasPrefix(r.RequestURI, "refused") {
					_, _ = io.WriteString(c, "HTTP/1.1 403 no\r\n\r\n")
					return
				}
				fmt.Fprintf(c, "HTTP/1.1 200 yes\r\n\r\nby way of the proxy to %s", r.RequestURI)
				if strings.HasPrefix(r.RequestURI, "stays") {
					_, _ = io.Copy(io.Discard, c)
				}
			}()
		}
	}()
	return p
}

func (p *testProxy) seen() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
}

func (p *testProxy) use(t *testing.T) option {
	t.Helper()
	proxies, err := upstream.New(p.settings)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *Config) { c.Upstream = proxies }
}

func TestPublicConnectionsGoByWayOfTheProxyToTheJudgedAddress(t *testing.T) {
	p := newProxy(t, "93.184.215.0/28")
	l := newLab(t, p.use(t), resolver(zone{"www.example": {"93.184.216.34"}, "lan.example": {"192.168.1.1"}}))
	a := netip.AddrPortFrom(l.address("www.example"), 22)
	if got, err := io.ReadAll(l.mustConnect(a)); err != nil || string(got) != "by way of the proxy to 93.184.216.34:22" {
		t.Errorf("got %q, %v", got, err)
	}
	direct := l.listen(22, func(c *net.TCPConn) { c.Close() }) // within NO_PROXY
	if _, err := io.ReadAll(l.mustConnect(direct)); err != nil {
		t.Error(err)
	}
	for _, closed := range []string{"192.168.1.1", "93.0.0.1", "127.0.0.1", "10.0.2.2"} {
		if c, err := l.connect(netip.AddrPortFrom(netip.MustParseAddr(closed), 22)); err == nil {
			c.Close()
			t.Errorf("%s is open", closed)
		}
	}
	if got := p.seen(); len(got) != 1 {
		t.Errorf("the proxy was to connect to %v", got)
	}
	if _, dialed := l.seen(); !slices.Equal(dialed, []netip.AddrPort{direct}) {
		t.Errorf("the host itself dialled %v", dialed)
	}
}

// A proxy on the Internet that lets this machine in would connect a guest to what is around it.
func TestTheProxyItselfIsClosed(t *testing.T) {
	proxy := netip.MustParseAddrPort("93.184.217.9:3128")
	names := resolver(zone{"proxy.example": {"93.184.217.9"}, "www.example": {public.String()}})
	at := func(c *Config) {
		proxies, err := upstream.New(upstream.Settings{Other: "http://" + proxy.String(), None: "93.184.217.9,93.184.215.14,.example"})
		if err != nil {
			t.Fatal(err)
		}
		c.Upstream = proxies
	}
	for name, l := range map[string]*lab{
		"the public network": newLab(t, at, names),
		"an allowlist":       newLab(t, allow(t, "proxy.example:*", "93.184.217.0/24:*", "www.example:*"), at, names),
	} {
		service := l.listen(3128, func(c *net.TCPConn) { c.Close() })
		l.mu.Lock()
		l.services[proxy] = l.services[service]
		l.mu.Unlock()
		if c, err := l.connect(proxy); err == nil {
			c.Close()
			t.Errorf("%s: the guest speaks to the proxy", name)
		}
		l.event(func(e Event) bool { return e.Rule == policy.RuleUpstream && e.Proto == "tcp" })
		if m := l.ask("proxy.example", dnsmessage.TypeA, 0); len(m.Answers) > 0 {
			if c, err := l.connect(netip.AddrPortFrom(l.address("proxy.example"), proxy.Port())); err == nil {
				c.Close()
				t.Errorf("%s: the guest speaks to the proxy by a name", name)
			}
		}
		if _, dialed := l.seen(); len(dialed) > 0 {
			t.Errorf("%s: the host dialled %v", name, dialed)
		}
		l.mustConnect(netip.AddrPortFrom(l.address("www.example"), service.Port()))
	}
}

func TestHostsBehindTLSAreReached(t *testing.T) {
	s := httptest.NewTLSServer(nil) // for its certificate
	t.Cleanup(s.Close)
	l := newLab(t, func(c *Config) {
		plain := c.Dial
		c.Dial = func(ctx context.Context, proto policy.Proto, a netip.AddrPort) (net.Conn, error) {
			c, err := plain(ctx, proto, a)
			if err != nil {
				return nil, err
			}
			return tls.Client(c, &tls.Config{InsecureSkipVerify: true}), nil
		}
	})
	secured := func(port uint16, serve func(*tls.Conn)) netip.AddrPort {
		return l.listen(port, func(c *net.TCPConn) { serve(tls.Server(c, s.TLS)) })
	}
	echo := secured(22, func(c *tls.Conn) {
		defer c.Close()
		got, err := io.ReadAll(c) // until the guest sends no more
		if err == nil {
			_, err = c.Write(got)
		}
		if err != nil {
			t.Error(err)
		}
	})
	sent := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	c := l.mustConnect(echo)
	go func() {
		if _, err := c.Write(sent); err != nil {
			t.Error(err)
		}
		_ = c.CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d are back: %v", len(got), len(sent), err)
	}
	if e := l.event(func(e Event) bool { return e.Addr == echo }); e.Sent != int64(len(sent)) || e.Received != int64(len(sent)) {
		t.Errorf("it is logged as %+v", e)
	}

	ended := make(chan error, 1)
	resets := secured(23, func(c *tls.Conn) {
		_, err := c.Read(make([]byte, 1))
		ended <- err
		abort(c.NetConn())
	})
	c = l.mustConnect(resets)
	if _, err := c.Write([]byte("x")); err != nil || <-ended != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a reset is passed on as %v", err)
	}
	stays := secured(24, func(c *tls.Conn) {
		_, err := io.Copy(io.Discard, c)
		ended <- err
	})
	c = l.mustConnect(stays)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	l.network.Close()
	<-ended // with the network
}

func TestAllowedNamesGoToTheProxyAsNames(t *testing.T) {
	p := newProxy(t, "")
	// The host finds out no name.
	l := newLab(t, allow(t, "api.example:22", "refused.example:22", "10.1.2.3:22"), p.use(t), resolver(zone{}))
	if got, err := io.ReadAll(l.mustConnect(netip.AddrPortFrom(l.address("api.example"), 22))); err != nil || string(got) != "by way of the proxy to api.example:22" {
		t.Errorf("got %q, %v", got, err)
	}
	_, err := l.connect(netip.AddrPortFrom(l.address("refused.example"), 22))
	if err == nil || !strings.Contains(err.Error(), "no route to host") {
		t.Errorf("what the proxy refuses: %v", err)
	}
	for _, closed := range []netip.AddrPort{netip.AddrPortFrom(l.address("api.example"), 23), netip.AddrPortFrom(public, 22)} {
		if _, err := l.connect(closed); err == nil {
			t.Errorf("%s is open", closed)
		}
	}
	near := netip.MustParseAddrPort("10.1.2.3:22")
	if _, err := l.connect(near); err == nil || !strings.Contains(err.Error(), "refused") { // by this machine, where nobody listens
		t.Errorf("an open address that is no public one: %v", err)
	}
	if got, want := p.seen(), []string{"api.example:22", "refused.example:22"}; !slices.Equal(got, want) {
		t.Errorf("the proxy was to connect to %v, want %v", got, want)
	}
	if _, dialed := l.seen(); !slices.Equal(dialed, []netip.AddrPort{near}) {
		t.Errorf("the host itself dialled %v", dialed)
	}
	for host, want := range map[string]policy.Verdict{"api.example": {Allow: true, Rule: "api.example:22"}, "other.example": {Rule: policy.RuleNotAllowed}} {
		if got, err := Check(context.Background(), l.network.config, host, 22, policy.TCP); err != nil || got.Verdict != want {
			t.Errorf("%s: %+v, %v", host, got, err)
		}
	}
}

func TestRulesThatDenyAddressesCountBehindTheProxy(t *testing.T) {
	p := newProxy(t, "")
	z := zone{
		"good.example": {"93.184.216.34"}, "bad.example": {"93.184.216.34", "93.184.215.14"}, "ipv6.example": {"64:ff9b::93.184.215.14"},
		"fails.example": {"fail"},
	}
	l := newLab(t, allow(t, "*.example:22"), p.use(t), resolver(z))
	open := func(name string) (string, error) {
		c, err := l.connect(netip.AddrPortFrom(l.address(name), 22))
		if err != nil {
			return "", err
		}
		defer c.Close()
		got, err := io.ReadAll(c)
		return string(got), err
	}
	check := func(name string) policy.Verdict {
		c := l.network.config
		c.Allow = l.network.rules.Load().allow
		a, err := Check(t.Context(), c, name, 22, policy.TCP)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return a.Verdict
	}
	for _, tt := range []struct {
		deny []string
		name string
		rule string // that closes it, or empty
	}{
		{nil, "bad.example", ""},
		{nil, "missing.example", ""},
		{[]string{"other.example"}, "missing.example", ""}, // names are judged as names
		{[]string{"93.184.215.14"}, "good.example", ""},
		{[]string{"93.184.215.14"}, "bad.example", "deny 93.184.215.14"},
		{[]string{"93.184.215.14"}, "ipv6.example", "deny 93.184.215.14"},
		{[]string{"93.184.215.14"}, "missing.example", RuleAddressUnknown},
		{[]string{"93.184.215.14"}, "fails.example", RuleAddressUnknown},
		{[]string{"93.184.215.0/24:80"}, "bad.example", ""}, // it is about another port
		{[]string{"93.184.215.0/24:80"}, "missing.example", ""},
	} {
		l.setRules([]string{"*.example:22"}, tt.deny)
		want := policy.Verdict{Allow: tt.rule == "", Rule: tt.rule}
		if want.Allow {
			want.Rule = "*.example:22"
		}
		if got := check(tt.name); got != want {
			t.Errorf("check of %s where %q is denied: %+v, want %+v", tt.name, tt.deny, got, want)
		}
		asked := len(p.seen())
		got, err := open(tt.name)
		if want.Allow != (err == nil) || want.Allow && got != fmt.Sprintf("by way of the proxy to %s:22", tt.name) {
			t.Errorf("%s where %q is denied: %q, %v", tt.name, tt.deny, got, err)
		}
		if want.Allow != (len(p.seen()) > asked) {
			t.Errorf("%s where %q is denied: the proxy was to connect to %v", tt.name, tt.deny, p.seen()[asked:])
		}
		if e := l.event(func(e Event) bool { return e.Proto == "tcp" && e.Name == tt.name && e.Rule == want.Rule }); e.Allowed != want.Allow {
			t.Errorf("%s where %q is denied is in the log as %+v", tt.name, tt.deny, e)
		}
	}
}

func TestWhatGoesToAProxyEndsWithARuleThatMayCloseIt(t *testing.T) {
	p := newProxy(t, "")
	for name, rule := range map[string]string{"stays.example": "deny 93.184.0.0/16", "stays-unknown.example": RuleAddressUnknown} {
		// The host is not asked for them before there is such a rule.
		l := newLab(t, allow(t, "*.example:22"), p.use(t), resolver(zone{"stays.example": {"93.184.215.14"}}))
		a := netip.AddrPortFrom(l.address(name), 22)
		l.setRules([]string{"*.example:22"}, []string{"93.185.0.0/16:80"}) // of another port
		c := l.mustConnect(a)
		if _, err := io.ReadFull(c, make([]byte, len("by way of"))); err != nil {
			t.Fatal(err)
		}
		l.setRules([]string{"*.example:22"}, []string{"93.184.0.0/16"})
		if _, err := io.ReadAll(c); err == nil {
			t.Errorf("%s: the connection ended as if nothing had closed it", name)
		}
		if e := l.event(func(e Event) bool { return e.Proto == "tcp" && e.Name == name }); e.Allowed || e.Rule != RuleAddressUnknown {
			t.Errorf("%s is in the log as %+v", name, e)
		}
		if _, err := l.connect(a); err == nil {
			t.Errorf("%s is open again", name)
		}
		l.event(func(e Event) bool { return e.Proto == "tcp" && e.Name == name && !e.Allowed && e.Rule == rule })
	}
}
