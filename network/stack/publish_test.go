package stack

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
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

// published connects to a port of the guest, which is published for that.
func (l *lab) published(port uint16) net.Conn {
	l.t.Helper()
	listener := listenLocal(l.t)
	stop, err := l.network.Publish(listener, port)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(stop)
	c, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	return c
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

// The guest decides whether what waits in a connection's buffer is read.
func TestAPublishedConnectionAmongManyHasSmallBuffers(t *testing.T) {
	l := newLab(t)
	server, err := gonet.ListenTCP(l.guest, full(netip.AddrPortFrom(Guest, 8080)), ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	l.network.mu.Lock()
	l.network.tcp = l.network.config.Connections - 1
	l.network.mu.Unlock()
	open := l.published(8080)
	_, _ = open.Write([]byte("x"))
	c, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	var found bool
	for _, registered := range l.network.stack.RegisteredEndpoints() {
		ep, ok := registered.(tcpip.Endpoint)
		if !ok {
			continue
		}
		if peer, err := ep.GetRemoteAddress(); err != nil || peer.Port != 8080 {
			continue
		}
		found = true
		if o := ep.SocketOptions(); o.GetSendBufferSize() > leastBuffer || o.GetReceiveBufferSize() > leastReceiveBuffer {
			t.Errorf("its buffers are of %d and %d bytes", o.GetSendBufferSize(), o.GetReceiveBufferSize())
		}
	}
	if !found {
		t.Error("the connection is not among those of the network")
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

func TestPublishedPacketPorts(t *testing.T) {
	l := newLab(t)
	local := full(netip.AddrPortFrom(Guest, 5353))
	server, err := gonet.DialUDP(l.guest, &local, nil, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		b := make([]byte, 65536)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(append([]byte("re:"), b[:n]...), from)
		}
	}()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stop, err := l.network.PublishPacket(c, 5353)
	if err != nil {
		t.Fatal(err)
	}
	var clients []net.Conn
	for i := range 3 { // of whom each gets its own answer
		client, err := net.Dial("udp", c.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		_ = client.SetReadDeadline(time.Now().Add(patience))
		clients = append(clients, client)
		_, _ = client.Write(bytes.Repeat([]byte{byte('a' + i)}, 1+i*20000))
	}
	for i, client := range clients {
		b := make([]byte, 65536)
		n, err := client.Read(b)
		if want := "re:" + strings.Repeat(string(rune('a'+i)), 1+i*20000); err != nil || string(b[:n]) != want {
			t.Errorf("client %d reads %d bytes, %v, want %d", i, n, err, len(want))
		}
	}
	stop()
	if _, err := c.WriteTo(nil, c.LocalAddr()); err == nil {
		t.Error("the socket is still open")
	}
}

func TestARestoredGuestIsReachedBeforeItHasSentAnything(t *testing.T) {
	l := newBareLab(t)
	l.published(22)
	f := l.receive()
	if a := header.ARP(f[header.EthernetMinimumSize:]); header.Ethernet(f).Type() != header.ARPProtocolNumber || a.Op() != header.ARPRequest || !bytes.Equal(a.ProtocolAddressTarget(), Guest.AsSlice()) {
		t.Fatalf("the network sends %x", f)
	}
	l.send(ethernet(gatewayMAC, guestMAC, header.ARPProtocolNumber, arpPacket(header.ARPReply, guestMAC, Guest, Gateway)))
	for what(f) != header.TCPFlagSyn.String() {
		f = l.receive()
	}
	if to := header.Ethernet(f).DestinationAddress(); to != guestMAC {
		t.Errorf("the connection goes to %s", to)
	}
}

func TestPublishedPortOfTheGuestsLoopback(t *testing.T) {
	asked := make(chan uint16, 10)
	l := newLab(t, func(c *Config) {
		c.Loopback = func(_ context.Context, port uint16) (HalfConn, error) {
			asked <- port
			if port != 3000 {
				return nil, errors.New("nobody listens there")
			}
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			if err != nil {
				return nil, err
			}
			var ends [2]*net.UnixConn
			for i, fd := range fds {
				f := os.NewFile(uintptr(fd), "end")
				c, err := net.FileConn(f)
				f.Close()
				if err != nil {
					return nil, err
				}
				ends[i] = c.(*net.UnixConn)
			}
			go func() {
				defer ends[1].Close()
				_, _ = io.Copy(ends[1], ends[1])
			}()
			return ends[0], nil
		}
	})
	server, err := gonet.ListenTCP(l.guest, full(netip.AddrPortFrom(Guest, 8080)), ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	dial := func(port uint16) (net.Conn, error) {
		t.Helper()
		listener := listenLocal(t)
		if _, err := l.network.Publish(listener, port); err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", listener.Addr().String())
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
		return c, err
	}
	c, err := dial(3000)
	if err != nil {
		t.Fatal(err)
	}
	sent := make([]byte, 1<<20)
	_, _ = rand.Read(sent)
	go func() {
		_, _ = c.Write(sent)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back of %d, and: %v", len(got), len(sent), err)
	}
	if port := <-asked; port != 3000 {
		t.Errorf("the guest's loopback was asked for port %d", port)
	}
	if c, err = dial(81); err == nil { // and not reset within the call already
		_, err = io.ReadAll(c)
	}
	if err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("a port that is nowhere: %v", err)
	}
	<-asked
	if _, err := dial(8080); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Accept(); err != nil || len(asked) > 0 {
		t.Errorf("a server on the guest's network: %v, and its loopback was asked: %t", err, len(asked) > 0)
	}
}
