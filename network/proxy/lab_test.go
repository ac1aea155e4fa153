package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/network/authority"
	"github.com/sourcery-zone/sandbox/network/policy"
)

// patience is how long a test waits for what has to come.
const patience = 60 * time.Second

const host = "api.example.com"

// lab is a Proxy between a client and a host, with authorities that each of the two believes.
type lab struct {
	t        testing.TB
	upstream *httptest.Server
	roots    *x509.CertPool // whom the client believes
	address  string         // where the client finds the host
	port     uint16

	proxy   *Proxy
	mu      sync.Mutex
	refused []string // by which rule, and which request
	changed chan struct{}
}

type change func(*lab, *Options)

// newLab has a host that handler serves, over TLS or without it, and rules.
func newLab(t testing.TB, scheme string, handler http.Handler, rules []string, changes ...change) *lab {
	t.Helper()
	l := &lab{t: t, port: 443, changed: make(chan struct{}, 1), roots: x509.NewCertPool()}
	believed, err := authority.New() // by the proxy: the Internet's
	if err != nil {
		t.Fatal(err)
	}
	own, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	l.roots.AppendCertsFromPEM(own.Certificate())
	l.upstream = httptest.NewUnstartedServer(handler)
	l.upstream.Config.ErrorLog = log.New(io.Discard, "", 0)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(believed.Certificate())
	o := Options{Authority: own, Roots: roots}
	leaf, err := believed.Leaf(host)
	if err != nil {
		t.Fatal(err)
	}
	l.upstream.TLS = &tls.Config{Certificates: []tls.Certificate{*leaf}}
	l.upstream.EnableHTTP2 = true
	for _, c := range changes {
		c(l, &o)
	}
	if scheme == "https" {
		l.upstream.StartTLS()
	} else {
		l.port = 80
		l.upstream.Start()
	}
	t.Cleanup(l.upstream.Close)

	list := &policy.Allowlist{Public: &policy.Policy{}}
	for _, text := range rules {
		r, err := policy.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		list.Rules = append(list.Rules, r)
	}
	p := New(o)
	l.proxy = p
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.address = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	dial := func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", l.upstream.Listener.Addr().String())
	}
	serving.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			up, err := dial(ctx)
			if err != nil {
				c.Close()
				continue
			}
			serving.Go(func() {
				p.Serve(ctx, Conn{Guest: c, Host: up, Name: host, Port: l.port, Dial: dial, Judge: list.Request, Remedy: func(rule string) string { return "open " + rule }, Refused: l.note})
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		cancel()
		serving.Wait()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func (l *lab) note(rule, request string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused = append(l.refused, strings.TrimSpace(rule+" "+request))
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// refusal waits for one.
func (l *lab) refusal(want string) {
	l.t.Helper()
	deadline := time.After(patience)
	for {
		l.mu.Lock()
		seen := slices.Clone(l.refused)
		l.mu.Unlock()
		if slices.Contains(seen, want) {
			return
		}
		select {
		case <-l.changed:
		case <-deadline:
			l.t.Fatalf("refused were %q, and not %q", seen, want)
		}
	}
}

func (l *lab) dialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", l.address)
}

// client is one of the guest's, which speaks HTTP/2 only if it is to.
func (l *lab) client(h2 bool) *http.Client {
	t := &http.Transport{
		DialContext: l.dialContext, TLSClientConfig: &tls.Config{RootCAs: l.roots}, Protocols: new(http.Protocols), DisableCompression: true,
		ExpectContinueTimeout: patience,
	}
	t.Protocols.SetHTTP1(!h2)
	t.Protocols.SetHTTP2(h2)
	l.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// raw connects without a client: what is sent is what a test writes.
func (l *lab) raw(protocols ...string) net.Conn {
	l.t.Helper()
	c, err := net.Dial("tcp", l.address)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	if l.port != 443 {
		return c
	}
	over := tls.Client(c, &tls.Config{RootCAs: l.roots, ServerName: host, NextProtos: protocols})
	if err := over.Handshake(); err != nil {
		l.t.Fatal(err)
	}
	return over
}

func read(t testing.TB, r *http.Response, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
