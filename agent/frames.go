package agent

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

// errHostileFrame is why the conversation with a guest ends that sends what no
// agent does.
var errHostileFrame = errors.New("the guest sent a frame that its agent never sends")

// guestFrames reads what a guest sends, for the yamux session of the host. It
// refuses the frames by which the other side makes the host do something: only
// the host opens streams, and neither side pings. yamux would start a goroutine
// for each ping, which lives until its answer is read, and keep up to 64 MiB for
// streams that nobody accepts.
type guestFrames struct {
	io.ReadWriteCloser
	header []byte // as much of a frame's header as has come
	body   uint32 // bytes of a frame's body that are still to come
}

func (g *guestFrames) Read(p []byte) (int, error) {
	n, err := g.ReadWriteCloser.Read(p)
	if refused := g.follow(p[:n]); refused != nil {
		return 0, refused
	}
	return n, err
}

// follow looks at the next piece of the stream.
func (g *guestFrames) follow(piece []byte) error {
	for len(piece) > 0 {
		if g.body > 0 {
			skipped := min(len(piece), int(g.body))
			piece, g.body = piece[skipped:], g.body-uint32(skipped)
			continue
		}
		taken := min(len(piece), wire.FrameHeader-len(g.header))
		g.header, piece = append(g.header, piece[:taken]...), piece[taken:]
		if len(g.header) < wire.FrameHeader {
			return nil
		}
		kind, flags := g.header[1], binary.BigEndian.Uint16(g.header[2:])
		if kind == wire.FramePing || flags&wire.FlagSYN != 0 {
			return errHostileFrame
		}
		if kind == wire.FrameData {
			g.body = binary.BigEndian.Uint32(g.header[8:])
		}
		g.header = g.header[:0]
	}
	return nil
}
