package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"github.com/sourcery-zone/sandbox/network/authority"
	"github.com/sourcery-zone/sandbox/network/proxy"
)

// readHost is a host whose requests are read. It is reached by way of a proxy, which is that host itself.
const readHost = "read.example"

// networkReading measures the memory of connections on which requests are read: of each, the network's process has the
// TLS of both sides.
func networkReading(ctx context.Context, b *bench) ([]figure, error) {
	program := filepath.Join(b.dir, traffic)
	if err := build(ctx, "bench/"+traffic, program); err != nil {
		return nil, err
	}
	internet, err := authority.New()
	if err != nil {
		return nil, err
	}
	certificate := filepath.Join(b.dir, "internet.pem")
	if err := os.WriteFile(certificate, internet.Certificate(), 0o600); err != nil {
		return nil, err
	}
	host, err := serve(func(c net.Conn) error { return answerRead(c, internet) })
	if err != nil {
		return nil, err
	}
	defer host.Close()
	n := networked{bench: b, name: "read", address: net.JoinHostPort(readHost, "443")}
	more := []string{"--net", "allowlist", "--allow", "https://" + readHost + "/**", "--trust-host-ca", certificate, "--upstream-proxy", "http://" + host.Addr().String()}
	if err := n.start(ctx, program, more); err != nil {
		return nil, err
	}
	defer b.remove(n.name)
	rss, err := n.memoryHolding(ctx, "hold-read", proxy.MaxConnections)
	if err != nil {
		return nil, err
	}
	return []figure{{Name: "net-rss-read", Unit: "MiB", Value: mebibytes(rss), detail: fmt.Sprintf("resident memory of the network's process, with %d open connections whose requests are read", proxy.MaxConnections)}}, nil
}

// answerRead is a proxy and the host behind it.
func answerRead(c net.Conn, by *authority.Authority) error {
	if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return err
	}
	over := tls.Server(c, &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return by.Leaf(hello.ServerName) }})
	for requests := bufio.NewReader(over); ; {
		if _, err := http.ReadRequest(requests); err != nil {
			return err
		}
		if _, err := io.WriteString(over, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"); err != nil {
			return err
		}
	}
}
