package stack

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// listenPackets makes a UDP service at a port of the public address, which answers each datagram.
func (l *lab) listenPackets(port uint16, answer func([]byte) []byte) netip.AddrPort {
	l.t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	a := netip.AddrPortFrom(public, port)
	l.mu.Lock()
	l.services[a] = c.LocalAddr().(*net.UDPAddr).AddrPort()
	l.mu.Unlock()
	go func() {
		b := make([]byte, 65536)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			if out := answer(b[:n]); out != nil {
				_, _ = c.WriteTo(out, from)
			}
		}
	}()
	return a
}

func (l *lab) packetConn(a netip.AddrPort) *gonet.UDPConn {
	l.t.Helper()
	to := full(a)
	c, err := gonet.DialUDP(l.guest, nil, &to, ipv4.ProtocolNumber)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	_ = c.SetReadDeadline(time.Now().Add(patience))
	return c
}

func TestDatagrams(t *testing.T) {
	l := newLab(t)
	a := l.listenPackets(123, func(b []byte) []byte { return append([]byte("re:"), b...) })
	c := l.packetConn(a)
	for _, size := range []int{1, 1400, 60000, 0} {
		sent := bytes.Repeat([]byte("d"), size)
		if _, err := c.Write(sent); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 65536)
		n, err := c.Read(b)
		if err != nil || string(b[:n]) != "re:"+string(sent) {
			t.Errorf("of %d bytes, %d come back, %v", size, n, err)
		}
	}
	l.network.Close()
	if e := l.event(func(e Event) bool { return e.Proto == "udp" }); e.Addr != a || e.Sent != 61401 || !e.Allowed {
		t.Errorf("it is logged as %+v", e)
	}
}

// pinger sends an echo request from the guest, and returns what comes back.
func (l *lab) pinger(to netip.Addr, ident, sequence uint16, payload string) (header.ICMPv4, error) {
	l.t.Helper()
	var queue waiter.Queue
	entry, readable := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr)
	queue.EventRegister(&entry)
	ep, err := l.guest.NewEndpoint(icmp.ProtocolNumber4, ipv4.ProtocolNumber, &queue)
	if err != nil {
		l.t.Fatal(err)
	}
	defer ep.Close()
	if err := ep.Bind(tcpip.FullAddress{NIC: nic, Addr: tcpipAddress(Guest), Port: ident}); err != nil {
		l.t.Fatal(err)
	}
	address := full(netip.AddrPortFrom(to, 0))
	if err := ep.Connect(address); err != nil {
		l.t.Fatal(err)
	}
	message := append(make(header.ICMPv4, header.ICMPv4MinimumSize), payload...)
	message.SetType(header.ICMPv4Echo)
	message.SetSequence(sequence)
	if _, err := ep.Write(bytes.NewReader(message), tcpip.WriteOptions{}); err != nil {
		l.t.Fatal(err)
	}
	for {
		var b bytes.Buffer
		_, err := ep.Read(&b, tcpip.ReadOptions{})
		switch {
		case err == nil:
			return b.Bytes(), nil
		case !isWouldBlock(err):
			return nil, endpointError{err}
		}
		select {
		case <-readable:
		case <-time.After(patience):
			l.t.Fatalf("%s: neither a reply nor an error", to)
		}
	}
}

type endpointError struct{ error tcpip.Error }

func (e endpointError) Error() string { return e.error.String() }

func TestPings(t *testing.T) {
	l := newLab(t)
	// The host's socket changes the number, as the kernel's do.
	a := l.listenPackets(0, func(b []byte) []byte {
		h := header.ICMPv4(bytes.Clone(b))
		if h.Type() != header.ICMPv4Echo {
			return nil
		}
		h.SetType(header.ICMPv4EchoReply)
		h.SetIdent(999)
		return h
	})
	for sequence := range uint16(2) {
		ident := 7 + sequence
		got, err := l.pinger(a.Addr(), ident, sequence, "payload")
		if err != nil || got.Type() != header.ICMPv4EchoReply || got.Ident() != ident || got.Sequence() != sequence || string(got.Payload()) != "payload" {
			t.Errorf("the reply is %x, %v", []byte(got), err)
		}
		if sum := checksum.Checksum(got, 0); sum != 0xffff {
			t.Errorf("the reply's checksum is wrong: %x", sum)
		}
	}
	if got, err := l.pinger(Gateway, 99, 1, "x"); err != nil || got.Type() != header.ICMPv4EchoReply {
		t.Errorf("the gateway answers %x, %v", []byte(got), err)
	}
}
