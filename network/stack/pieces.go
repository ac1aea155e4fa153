package stack

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	// smallPiece is what is written at once, in bytes, where the memory that keeps it, about 500 bytes, is little beside it.
	smallPiece = 2 << 10

	// leastSegment is what a segment to the guest may have at least: what all hosts take (RFC 9293, section 3.7.1).
	leastSegment = header.TCPDefaultMSS
)

// pieces bounds what is kept of what is written to a guest's connection in small pieces. The stack counts their bytes, and
// not the memory around each, which for single bytes is five hundred times as much: so somebody who sends them one by one to
// a guest that takes nothing would fill the memory. The smaller a piece is, the less may wait before it. What does not fit
// waits where it comes from, and is larger then.
type pieces struct {
	options *tcpip.SocketOptions
	most    int64 // bytes that may wait
}

// piecesOf is for a connection whose buffers have their size.
func piecesOf(ep tcpip.Endpoint) pieces {
	options := ep.SocketOptions()
	return pieces{options, options.GetSendBufferSize()}
}

// next says how large the next piece is, before it is written.
func (p pieces) next(size int) {
	room := p.most
	if size < smallPiece {
		room = p.most * int64(size) / smallPiece
	}
	if p.options.GetSendBufferSize() != room {
		p.options.SetSendBufferSize(room, false)
	}
}

// pieceConn is a guest's connection, of which the small pieces that are written are bounded.
type pieceConn struct {
	*gonet.TCPConn
	pieces pieces
}

func newPieceConn(queue *waiter.Queue, ep tcpip.Endpoint) pieceConn {
	return pieceConn{gonet.NewTCPConn(queue, ep), piecesOf(ep)}
}

func (c pieceConn) Write(b []byte) (int, error) {
	c.pieces.next(len(b))
	return c.TCPConn.Write(b)
}

// raiseSegments changes a segment of the guest's that begins a connection, if the guest wants smaller ones than leastSegment:
// each is kept in memory until the guest has taken it. Its checksum is wrong then, and nobody looks at it.
func raiseSegments(segment []byte) {
	h := header.TCP(segment)
	if len(h) < header.TCPMinimumSize || h.Flags()&header.TCPFlagSyn == 0 || int(h.DataOffset()) > len(h) || h.DataOffset() < header.TCPMinimumSize {
		return
	}
	for o := h.Options(); len(o) > 0; {
		length := 1
		if o[0] != header.TCPOptionNOP {
			if o[0] == header.TCPOptionEOL || len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
				return
			}
			length = int(o[1])
		}
		if o[0] == header.TCPOptionMSS && length == header.TCPOptionMSSLength && binary.BigEndian.Uint16(o[2:]) < leastSegment {
			binary.BigEndian.PutUint16(o[2:], leastSegment)
		}
		o = o[length:]
	}
}
