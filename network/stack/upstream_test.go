package stack

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/sourcery-zone/sandbox/network/upstream"
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
