package stack

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

func listenLocal(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestPublishedPorts(t *testing.T) {
	l := newLab(t)
	server, err := gonet.ListenTCP(l.guest, full(netip.AddrPortFrom(Guest, 8080)), ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	listener := listenLocal(t)
	stop, err := l.network.Publish(listener, 8080)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent := make([]byte, 1<<20)
	_, _ = rand.Read(sent)
	go func() {
		_, _ = c.Write(sent)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back of %d, and: %v", len(got), len(sent), err)
	}

	open, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	_, _ = open.Write([]byte("x"))
	if _, err := io.ReadFull(open, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := io.ReadFull(open, make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("an open connection of a port that is published no more: %v", err)
	}
	if c, err := net.Dial("tcp", listener.Addr().String()); err == nil {
		c.Close()
		t.Error("the port is still open")
	}
}

func TestAPublishedPortThatTheGuestDoesNotServeResets(t *testing.T) {
	l := newLab(t)
	listener := listenLocal(t)
	stop, err := l.network.Publish(listener, 81)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	c, err := net.Dial("tcp", listener.Addr().String())
	if err == nil { // and not reset within the call already
		defer c.Close()
		_, err = io.ReadFull(c, make([]byte, 1))
	}
	if err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("it is %v", err)
	}
}
