package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sourcery-zone/sandbox/network/authority"
)

const (
	secretHost = "read.example.com"  // which gets a secret
	otherHost  = "other.example.com" // which gets none
	secretText = "bench-what-no-guest-ever-gets-to-see-of-it"
)

// secrets compares requests that get a secret with the same ones that pass unread, in one guest, and those to another host
// with the same ones in a guest that has no secret.
func secrets(ctx context.Context, b *bench) ([]figure, error) {
	program := filepath.Join(b.dir, traffic)
	if err := build(ctx, "bench/"+traffic, program); err != nil {
		return nil, err
	}
	believed, err := authority.New()
	if err != nil {
		return nil, err
	}
	ca, key := filepath.Join(b.dir, "ca.pem"), filepath.Join(b.dir, "key")
	if err := errors.Join(os.WriteFile(ca, believed.Certificate(), 0o600), os.WriteFile(key, []byte(secretText), 0o600)); err != nil {
		return nil, err
	}
	internet, err := serveInternet(believed)
	if err != nil {
		return nil, err
	}
	defer internet.Close()
	common := []string{
		"--net", "allowlist", "--allow", secretHost, "--allow", otherHost, "--trust-host-ca", ca,
		"--upstream-proxy", "http://" + internet.Addr().String(),
	}
	read := networked{bench: b, name: "secret", address: "https://" + secretHost}
	without := networked{bench: b, name: "no-secret", address: "https://" + otherHost}
	for n, more := range map[*networked][]string{&read: {"--secret", "BENCH_KEY=file:" + key + "@" + secretHost}, &without: nil} {
		if err := n.start(ctx, program, append(more, common...)); err != nil {
			return nil, err
		}
		defer b.remove(n.name)
	}
	unread := read
	unread.address = "https://" + otherHost

	var figures []figure
	requests := int64(10 * b.calls)
	for _, m := range []struct {
		figure, mode string
		amount       int64
		ours, theirs networked
		goal, added  float64 // the latter for the difference, in milliseconds
	}{
		{"secret-request", "https-request", requests, read, unread, 0, 2},
		{"secret-first-byte", "https-first", int64(2 * b.calls), read, unread, 0, 2},
		{"secret-connect", "https-connect", int64(2 * b.calls), read, unread, 0, 0},
		{"secret-down", "https-down", transferred, read, unread, 1 / 0.6, 0},
		{"secret-up", "https-up", transferred, read, unread, 1 / 0.6, 0},
		{"secret-other-request", "https-request", requests, unread, without, 1.1, 0},
		{"secret-other-down", "https-down", transferred, unread, without, 1.1, 0},
	} {
		var took [2]series
		sides := []networked{m.ours, m.theirs}
		for round := range 2 * b.repeat {
			i := (round + round/2) % 2 // which is first changes, as what is second may find the machine another one
			all, err := sides[i].measure(ctx, m.mode, 1, m.amount)
			if err != nil {
				return nil, err
			}
			took[i] = append(took[i], all...)
		}
		f := ratio(m.figure, took[0], took[1])
		if m.goal != 0 {
			f = f.with(m.goal)
		}
		figures = append(figures, f)
		if m.added != 0 {
			difference := took[0].median() - took[1].median()
			figures = append(figures, figure{
				Name: m.figure + "-added", Unit: "ms", Value: difference.Seconds() * 1000, detail: "the difference of the two",
			}.with(m.added))
		}
	}
	return figures, nil
}

// serveInternet is a proxy on this machine and what is behind it: whatever host is asked for, this program is it, and the
// authority vouches for it.
func serveInternet(believed *authority.Authority) (net.Listener, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(loopback, "0"))
	if err != nil {
		return nil, err
	}
	config := &tls.Config{NextProtos: []string{"http/1.1"}, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return believed.Leaf(hello.ServerName)
	}}
	go func() { _ = http.Serve(tls.NewListener(behindProxy{l}, config), http.HandlerFunc(answerHTTPS)) }()
	return l, nil
}

// behindProxy accepts what the proxy was asked to connect to a host.
type behindProxy struct{ net.Listener }

func (p behindProxy) Accept() (net.Conn, error) {
	for {
		c, err := p.Listener.Accept()
		if err != nil {
			return nil, err
		}
		// Only when it was answered, a client goes on: nothing else is read with it.
		if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil && r.Method == http.MethodConnect {
			if _, err = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); err == nil {
				return c, nil
			}
		}
		c.Close()
	}
}

func answerHTTPS(w http.ResponseWriter, r *http.Request) {
	const line = "What is in a large answer, mostly.\n"
	if r.Host == secretHost && r.Header.Get("Authorization") != "Bearer "+secretText {
		http.Error(w, "the secret is missing", http.StatusUnauthorized)
		return
	}
	switch r.URL.Path {
	case "/stream":
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: first\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	case "/down":
		left, _ := strconv.ParseInt(r.FormValue("bytes"), 10, 64)
		w.Header().Set("Content-Length", strconv.FormatInt(left, 10))
		for piece := strings.Repeat(line, 1000); left > 0; left -= int64(len(piece)) {
			piece = piece[:min(left, int64(len(piece)))]
			if _, err := io.WriteString(w, piece); err != nil {
				return
			}
		}
	default:
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"answer":"ok"}`)
	}
}
