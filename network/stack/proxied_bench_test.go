package stack

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

// BenchmarkProxied compares requests that are read on their way with those that are not.
func BenchmarkProxied(b *testing.B) {
	const size = 16 << 20
	for _, c := range []struct{ name, rule string }{{"through", "api.example.com"}, {"read", "https://api.example.com/**"}} {
		internet, own := newAuthority(b), newAuthority(b)
		l := newLab(b, allow(b, c.rule), proxied(b, own, internet), resolver(zone{"api.example.com": {public.String()}}))
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/large" {
				_, _ = w.Write(make([]byte, size))
			}
		}))
		s.TLS = &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return internet.Leaf(hello.ServerName) }}
		s.StartTLS()
		b.Cleanup(s.Close)
		l.services[netip.AddrPortFrom(public, 443)] = s.Listener.Addr().(*net.TCPAddr).AddrPort()
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(internet.Certificate())
		pool.AppendCertsFromPEM(own.Certificate())
		at := netip.AddrPortFrom(l.address("api.example.com"), 443)
		client := &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: pool},
			DialContext:     func(context.Context, string, string) (net.Conn, error) { return l.connect(at) },
		}}
		get := func(b *testing.B, path string) {
			r, err := client.Get("https://api.example.com" + path)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				b.Fatal(err)
			}
			r.Body.Close()
		}
		b.Run(c.name+"/request", func(b *testing.B) {
			for b.Loop() {
				get(b, "/")
			}
		})
		b.Run(c.name+"/large", func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				get(b, "/large")
			}
		})
		b.Run(c.name+"/connection", func(b *testing.B) {
			for b.Loop() {
				get(b, "/")
				client.CloseIdleConnections()
			}
		})
	}
}
