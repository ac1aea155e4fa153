package upstream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http/httpproxy"
	"golang.org/x/net/proxy"
)

// Proxies knows by which proxy a host is reached. A nil one knows none.
type Proxies struct {
	web, other *Proxy
	wanted     func(*url.URL) (*url.URL, error)
	lookup     func(ctx context.Context, network, host string) ([]netip.Addr, error)

	mu        sync.Mutex
	addresses []netip.Addr
	until     time.Time     // when they are looked up again; none, if they never were
	looking   chan struct{} // closed when a lookup has ended; nil, if there is none
}

const (
	// addressTime is how long the addresses of proxies are believed, and retryTime how long those of before are if they cannot
	// be found within lookupTimeout.
	addressTime   = time.Minute
	retryTime     = 5 * time.Second
	lookupTimeout = 2 * time.Second
)

// Addresses returns those that the proxies have, as far as it is known: only the first lookup is waited for. If they cannot be
// found out, they are those of before: there is no way by the proxy then either.
func (p *Proxies) Addresses() []netip.Addr {
	p.mu.Lock()
	first := p.until.IsZero()
	if p.looking == nil && !time.Now().Before(p.until) {
		p.looking = make(chan struct{})
		go p.look(p.looking)
	}
	looking := p.looking
	p.mu.Unlock()
	if first {
		<-looking
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addresses
}

// look looks the addresses up, and closes ended.
func (p *Proxies) look(ended chan struct{}) {
	defer close(ended)
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	var all []netip.Addr
	failed := false
	for _, proxy := range []*Proxy{p.web, p.other} {
		if proxy == nil {
			continue
		}
		found, err := p.lookup(ctx, "ip", proxy.url.Hostname())
		failed = failed || err != nil
		for _, a := range found {
			all = append(all, a.Unmap().WithZone(""))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looking, p.until = nil, time.Now().Add(addressTime)
	if failed {
		all, p.until = append(all, p.addresses...), time.Now().Add(retryTime)
	}
	slices.SortFunc(all, netip.Addr.Compare)
	p.addresses = slices.Compact(all)
}

// New returns the proxies that there are by the settings: nil, if there are none.
func New(s Settings) (*Proxies, error) {
	if s.Web == "" && s.Other == "" {
		return nil, nil
	}
	if len(s.Web)+len(s.Other)+len(s.None) > maxSettings {
		return nil, fmt.Errorf("the settings of proxies are longer than %d bytes", maxSettings)
	}
	// It is asked for nothing but whether any proxy is wanted.
	rule := httpproxy.Config{HTTPProxy: "http://proxy", HTTPSProxy: "http://proxy", NoProxy: s.None}
	p := &Proxies{wanted: rule.ProxyFunc(), lookup: net.DefaultResolver.LookupNetIP}
	for text, proxy := range map[string]**Proxy{s.Web: &p.web, s.Other: &p.other} {
		if text == "" {
			continue
		}
		u, err := parse(text)
		if err != nil {
			return nil, err
		}
		*proxy = &Proxy{url: u}
		if u.Scheme == "https" {
			(*proxy).tls = &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(0)}
		}
	}
	if s.Web == s.Other {
		p.web = p.other
	}
	return p, nil
}

// For returns the proxy by which a port of a host, a name or an address, is reached: nil, if that is without one.
func (p *Proxies) For(host string, port uint16) *Proxy {
	if p == nil {
		return nil
	}
	proxy, scheme := p.other, "https"
	if port == 80 {
		proxy, scheme = p.web, "http"
	}
	if u, err := p.wanted(&url.URL{Scheme: scheme, Host: net.JoinHostPort(host, strconv.Itoa(int(port)))}); err != nil || u == nil {
		return nil
	}
	return proxy
}

// Proxy is one of the two kinds: of HTTP, by CONNECT (RFC 9110, section 9.3.6), or of SOCKS (RFC 1928).
type Proxy struct {
	url *url.URL
	tls *tls.Config // by which it is spoken to; nil: without TLS
}

// RefusedError is that a proxy does not connect.
type RefusedError struct{ why string }

func (e *RefusedError) Error() string { return "the upstream proxy does not connect: " + e.why }

// Is tells those who know no proxies that the host is not reached: that is all that they can make of it.
func (e *RefusedError) Is(target error) bool { return target == syscall.EHOSTUNREACH }

// Dial connects to a port of a host by way of the proxy. The connection is one of package net, to the proxy, or over
// TLS a *tls.Conn: such a proxy is believed if those vouch for it whom the system believes.
func (p *Proxy) Dial(ctx context.Context, host string, port uint16) (net.Conn, error) {
	at := p.url.Host
	if p.url.Port() == "" {
		at = net.JoinHostPort(p.url.Hostname(), ports[p.url.Scheme])
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", at)
	if err != nil {
		return nil, &RefusedError{err.Error()}
	}
	if p.tls != nil {
		over := tls.Client(c, p.tls)
		if err := over.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(&RefusedError{err.Error()}, c.Close())
		}
		c = over
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	target := net.JoinHostPort(host, strconv.Itoa(int(port)))
	if strings.HasPrefix(p.url.Scheme, "socks") {
		err = p.connectSOCKS(ctx, c, target)
	} else {
		err = p.connectHTTP(c, target)
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, c.SetDeadline(time.Time{})
}

// maxAnswer bounds a proxy's answer, in bytes.
const maxAnswer = 16 << 10

func (p *Proxy) connectHTTP(c net.Conn, target string) error {
	request := fmt.Sprintf("CONNECT %[1]s HTTP/1.1\r\nHost: %[1]s\r\n", target)
	if u := p.url.User; u != nil {
		password, _ := u.Password()
		request += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)) + "\r\n"
	}
	if _, err := io.WriteString(c, request+"\r\n"); err != nil {
		return &RefusedError{err.Error()}
	}
	// What follows the answer is the host's already, so nothing is read ahead.
	var answer []byte
	for one := make([]byte, 1); !bytes.HasSuffix(answer, []byte("\r\n\r\n")); answer = append(answer, one[0]) {
		if len(answer) == maxAnswer {
			return &RefusedError{"its answer does not end"}
		}
		if _, err := io.ReadFull(c, one); err != nil {
			return &RefusedError{err.Error()}
		}
	}
	r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), &http.Request{Method: http.MethodConnect})
	if err != nil {
		return &RefusedError{"its answer is none of HTTP"}
	}
	switch {
	case r.StatusCode/100 == 2:
		return nil
	case r.StatusCode == http.StatusProxyAuthRequired:
		return &RefusedError{"it wants a name and a password, or others: the variable HTTPS_PROXY has them as user:password@"}
	}
	return &RefusedError{fmt.Sprintf("status %d", r.StatusCode)}
}

func (p *Proxy) connectSOCKS(ctx context.Context, c net.Conn, target string) error {
	var auth *proxy.Auth
	if u := p.url.User; u != nil {
		password, _ := u.Password()
		auth = &proxy.Auth{User: u.Username(), Password: password}
	}
	d, err := proxy.SOCKS5("tcp", p.url.Host, auth, nil)
	if err != nil {
		return err
	}
	// Its other methods return connections that are not of package net.
	over, ok := d.(interface {
		DialWithConn(ctx context.Context, c net.Conn, network, address string) (net.Addr, error)
	})
	if !ok {
		return fmt.Errorf("a %T does not use connections that are there", d)
	}
	if _, err := over.DialWithConn(ctx, c, "tcp", target); err != nil {
		return &RefusedError{err.Error()}
	}
	return nil
}
