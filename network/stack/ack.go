package stack

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// ackDelay is the most that an acknowledgment waits for an answer that it can go with. RFC 1122, 4.2.3.2 allows
	// 500 ms, and Linux takes 40; who writes twice before reading, without TCP_NODELAY, waits for all of it.
	ackDelay = 4 * time.Millisecond

	// smallSegment is the most that a segment may hold for its acknowledgment to wait: a request is answered soon, while
	// what is sent in bulk goes on by its acknowledgments.
	smallSegment = 4 << 10
)

// acks lets an acknowledgment wait for a moment: most of a guest's requests are answered in less, and the answer
// acknowledges as well. Each frame less is an interrupt less of the guest's, and a waking less of QEMU. (gVisor's TCP
// acknowledges at once.)
//
// There is room for one. What else a busy guest waits for is not delayed.
type acks struct {
	asked   segment // that was received last, and is to be acknowledged
	held    *netstack.PacketBuffer
	flow    netstack.TransportEndpointID // of held
	release *time.Timer
	// running tells that the timer runs. It goes on when an answer has come, as that is far more often than it runs out.
	running bool
}

// segment is what an acknowledgment is told by.
type segment struct {
	flow netstack.TransportEndpointID // local is the host's side
	next uint32                       // number of the byte after it
}

// smallRequest returns the segment of a frame of the guest's, if it is small and the last for now.
func smallRequest(frame []byte) (segment, bool) {
	packet := frame[header.EthernetMinimumSize:]
	var guest, host tcpip.Address
	var b []byte
	switch header.Ethernet(frame).Type() {
	case header.IPv4ProtocolNumber:
		h := header.IPv4(packet)
		if !h.IsValid(len(packet)) || h.TransportProtocol() != header.TCPProtocolNumber {
			return segment{}, false
		}
		guest, host, b = h.SourceAddress(), h.DestinationAddress(), h.Payload()
	case header.IPv6ProtocolNumber:
		h := header.IPv6(packet)
		if !h.IsValid(len(packet)) || h.NextHeader() != uint8(header.TCPProtocolNumber) {
			return segment{}, false
		}
		guest, host, b = h.SourceAddress(), h.DestinationAddress(), h.Payload()
	default:
		return segment{}, false
	}
	h := header.TCP(b)
	if len(h) < header.TCPMinimumSize || int(h.DataOffset()) > len(h) {
		return segment{}, false
	}
	size := uint32(len(h) - int(h.DataOffset()))
	flags := h.Flags()
	if flags&(header.TCPFlagPsh|header.TCPFlagFin) == 0 || size > smallSegment {
		return segment{}, false
	}
	next := h.SequenceNumber() + size
	if flags&header.TCPFlagFin != 0 {
		next++
	}
	return segment{netstack.TransportEndpointID{
		LocalAddress: host, LocalPort: h.DestinationPort(), RemoteAddress: guest, RemotePort: h.SourcePort(),
	}, next}, true
}

// sent is what a packet that is to be sent acknowledges. Bare tells whether it does nothing else.
func sent(pkt *netstack.PacketBuffer) (s segment, bare, ok bool) {
	if pkt.TransportProtocolNumber != header.TCPProtocolNumber {
		return s, false, false
	}
	h := header.TCP(pkt.TransportHeader().Slice())
	if len(h) < header.TCPMinimumSize {
		return s, false, false
	}
	n := pkt.Network()
	s = segment{netstack.TransportEndpointID{
		LocalAddress: n.SourceAddress(), LocalPort: h.SourcePort(), RemoteAddress: n.DestinationAddress(), RemotePort: h.DestinationPort(),
	}, h.AckNumber()}
	return s, h.Flags() == header.TCPFlagAck && pkt.Data().Size() == 0, true
}

// wait takes over an acknowledgment that can wait, until its connection has something else to send, or release runs out.
func (a *acks) wait(pkt *netstack.PacketBuffer) bool {
	s, bare, ok := sent(pkt)
	if !ok {
		return false
	}
	asked := s == a.asked
	if asked {
		a.asked = segment{}
	}
	if a.held != nil {
		if s.flow == a.flow {
			a.take().DecRef() // what is sent after it acknowledges no less
		}
		return false
	}
	if !bare || !asked {
		return false
	}
	a.held, a.flow = pkt.IncRef(), s.flow
	if !a.running {
		a.running = true
		a.release.Reset(ackDelay)
	}
	return true
}

// take returns what waits, which is the caller's then; nil if nothing does.
func (a *acks) take() *netstack.PacketBuffer {
	pkt := a.held
	a.held = nil
	return pkt
}
