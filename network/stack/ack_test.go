package stack

import (
	"bytes"
	"net/netip"
	"os"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
)

// ackLab is a link at which the test is both the guest and the stack.
type ackLab struct {
	t      *testing.T
	link   *link
	guest  *os.File
	client netip.AddrPort
	server netip.AddrPort
}

// newAckLab starts one in which nothing is released by time, unless it is late.
func newAckLab(t *testing.T, late bool) *ackLab {
	t.Helper()
	ours, guests, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	l := &ackLab{t: t, guest: withDeadlines(t, guests), client: netip.AddrPortFrom(Guest, 4000), server: netip.AddrPortFrom(public, 80)}
	if l.link, err = newLink(ours, MaxMTU, gatewayMAC, func([]byte) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if !late {
		l.link.acks.release.Stop()
		l.link.mu.Lock()
		l.link.acks.running = true
		l.link.mu.Unlock()
	}
	l.link.Attach(deaf{})
	t.Cleanup(func() {
		l.link.shut()
		l.guest.Close()
	})
	return l
}

// deaf is a stack that answers nothing.
type deaf struct{ netstack.NetworkDispatcher }

func (deaf) DeliverNetworkPacket(tcpip.NetworkProtocolNumber, *netstack.PacketBuffer) {}

// request delivers a segment of the guest's that begins with byte 1.
func (l *ackLab) request(from netip.AddrPort, flags header.TCPFlags, size int) {
	segment := tcpSegment(from, l.server, header.TCPFlagAck|flags)
	payload := append(header.IPv4(segment).Payload(), bytes.Repeat([]byte("x"), size)...)
	l.link.deliver(ethernet(gatewayMAC, guestMAC, header.IPv4ProtocolNumber, ipPacket(from.Addr(), l.server.Addr(), header.TCPProtocolNumber, payload)))
}

// reply has the link send a segment to the guest.
func (l *ackLab) reply(to netip.AddrPort, ack uint32, flags header.TCPFlags, payload string) {
	l.t.Helper()
	pkt := netstack.NewPacketBuffer(netstack.PacketBufferOptions{
		ReserveHeaderBytes: header.EthernetMinimumSize + header.IPv4MinimumSize + header.TCPMinimumSize,
		Payload:            buffer.MakeWithData([]byte(payload)),
	})
	defer pkt.DecRef()
	header.TCP(pkt.TransportHeader().Push(header.TCPMinimumSize)).Encode(&header.TCPFields{
		SrcPort: l.server.Port(), DstPort: to.Port(), SeqNum: 7, AckNum: ack, DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagAck | flags,
	})
	pkt.TransportProtocolNumber = header.TCPProtocolNumber
	header.IPv4(pkt.NetworkHeader().Push(header.IPv4MinimumSize)).Encode(&header.IPv4Fields{
		TotalLength: uint16(pkt.Size()), TTL: 64, Protocol: uint8(header.TCPProtocolNumber), SrcAddr: tcpipAddress(l.server.Addr()), DstAddr: tcpipAddress(to.Addr()),
	})
	pkt.NetworkProtocolNumber = header.IPv4ProtocolNumber
	l.link.AddHeader(pkt)
	var list netstack.PacketBufferList
	list.PushBack(pkt)
	if _, err := l.link.WritePackets(list); err != nil {
		l.t.Fatal(err)
	}
}

// receives holds what the guest gets next.
func (l *ackLab) receives(ack uint32, payload string) {
	l.t.Helper()
	_ = l.guest.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 70000)
	n, err := l.guest.Read(b)
	if err != nil {
		l.t.Fatalf("the guest gets nothing: %v", err)
	}
	h := header.TCP(header.IPv4(b[header.EthernetMinimumSize:n]).Payload())
	if h.AckNumber() != ack || string(h.Payload()) != payload {
		l.t.Fatalf("the guest gets the acknowledgment of byte %d with %q, want %d with %q", h.AckNumber(), h.Payload(), ack, payload)
	}
}

func TestAnswerAcknowledgesARequest(t *testing.T) {
	l := newAckLab(t, false)
	l.request(l.client, header.TCPFlagPsh, 3)
	l.reply(l.client, 4, 0, "")
	l.reply(l.client, 4, header.TCPFlagPsh, "answer")
	l.receives(4, "answer")
	l.request(l.client, header.TCPFlagFin, 3) // the lab's segments have no other number
	l.reply(l.client, 5, 0, "")
	l.reply(l.client, 5, header.TCPFlagFin, "")
	l.receives(5, "")
	l.reply(l.client, 6, 0, "end") // nothing else was sent
	l.receives(6, "end")
}

func TestAcknowledgmentGoesAloneWhereNoAnswerComes(t *testing.T) {
	l := newAckLab(t, true)
	for range 3 {
		l.request(l.client, header.TCPFlagPsh, 3)
		l.reply(l.client, 4, 0, "")
		l.receives(4, "")
	}
}

func TestOnlyOneAcknowledgmentWaits(t *testing.T) {
	l := newAckLab(t, false)
	other := netip.AddrPortFrom(Guest, 4001)
	for _, c := range []struct {
		name  string
		flags header.TCPFlags
		size  int
	}{
		{"a segment that is not the last", 0, 3},
		{"a large one", header.TCPFlagPsh, smallSegment + 1},
	} {
		l.request(l.client, c.flags, c.size)
		l.reply(l.client, uint32(1+c.size), 0, "")
		l.receives(uint32(1+c.size), "")
		t.Log(c.name)
	}
	l.request(l.client, header.TCPFlagPsh, 3)
	l.reply(l.client, 3, 0, "") // of less than that
	l.receives(3, "")
	l.reply(l.client, 4, 0, "") // waits
	l.request(other, header.TCPFlagPsh, 5)
	l.reply(other, 6, 0, "") // of another connection
	l.receives(6, "")
	l.request(l.client, header.TCPFlagPsh, 8)
	l.reply(l.client, 9, 0, "") // the second of the first connection
	l.receives(9, "")
	l.reply(other, 9, 0, "end")
	l.receives(9, "end")
}
