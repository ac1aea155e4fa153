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
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// cpuTime is how long this process has run, in nanoseconds: on a machine that does other things too, the figure to trust.
func cpuTime(b *testing.B) int64 {
	b.Helper()
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return used.Utime.Nano() + used.Stime.Nano()
}

// BenchmarkProxied compares requests that are read on their way with those that are not.
func BenchmarkProxied(b *testing.B) {
	const size = 16 << 20
	large := make([]byte, size)
	for _, c := range []struct {
		name, rule string
		h2         bool
	}{
		{"through", "api.example.com", false},
		{"read", "https://api.example.com/**", false},
		{"through-h2", "api.example.com", true},
		{"read-h2", "https://api.example.com/**", true},
	} {
		internet, own := newAuthority(b), newAuthority(b)
		l := newLab(b, allow(b, c.rule), proxied(b, own, internet), resolver(zone{"api.example.com": {public.String()}}))
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/large" {
				w.Header().Set("Content-Length", strconv.Itoa(size))
				_, _ = w.Write(large)
			}
		}))
		s.TLS = &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return internet.Leaf(hello.ServerName) }}
		s.EnableHTTP2 = c.h2
		s.StartTLS()
		b.Cleanup(s.Close)
		l.services[netip.AddrPortFrom(public, 443)] = s.Listener.Addr().(*net.TCPAddr).AddrPort()
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(internet.Certificate())
		pool.AppendCertsFromPEM(own.Certificate())
		at := netip.AddrPortFrom(l.address("api.example.com"), 443)
		client := &http.Client{Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: pool},
			ForceAttemptHTTP2: c.h2,
			DialContext:       func(context.Context, string, string) (net.Conn, error) { return l.connect(at) },
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
			before := cpuTime(b)
			for b.Loop() {
				get(b, "/large")
			}
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
		b.Run(c.name+"/connection", func(b *testing.B) {
			for b.Loop() {
				get(b, "/")
				client.CloseIdleConnections()
			}
		})
	}
}
