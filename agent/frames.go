package agent

import (
	"encoding/binary"
	"errors"
	"io"
)

// From yamux's specification: a frame's header is 12 bytes long, its second
// byte is the type, the next two are flags, and its last four are the length of
// the body if the type is that of data.
const (
	muxHeader   = 12
	muxTypeData = 0
	muxTypePing = 2
	muxFlagSYN  = 1
)

// joinLimit is the longest body that is copied behind its header. Where more
// than that is moved, one write more does not matter.
const joinLimit = 32 << 10

// wholeFrames writes each of yamux's frames in one piece.
type wholeFrames struct {
	io.ReadWriteCloser
	header []byte // written, but held back until its body comes
	joined []byte
}

// WholeFrames is for the connection under a yamux session. yamux writes a frame's
// header and body one after the other, and on a virtio-serial port each write
// costs the writer an exit to QEMU and the reader an interrupt: for the small
// frames of a command's start that is what takes the time.
func WholeFrames(conn io.ReadWriteCloser) io.ReadWriteCloser {
	return &wholeFrames{ReadWriteCloser: conn}
}

// Write is called by one goroutine, with a header or a body at a time.
func (w *wholeFrames) Write(p []byte) (int, error) {
	switch {
	case len(w.header) == 0 && announcesBody(p):
		w.header = append(w.header, p...)
		return len(p), nil
	case len(w.header) == 0:
		return w.ReadWriteCloser.Write(p)
	}
	header := w.header
	w.header = w.header[:0]
	if len(p) > joinLimit {
		if _, err := w.ReadWriteCloser.Write(header); err != nil {
			return 0, err
		}
		return w.ReadWriteCloser.Write(p)
	}
	w.joined = append(append(w.joined[:0], header...), p...)
	n, err := w.ReadWriteCloser.Write(w.joined)
	return max(0, n-len(header)), err
}

func announcesBody(p []byte) bool {
	return len(p) == muxHeader && p[1] == muxTypeData && binary.BigEndian.Uint32(p[8:]) > 0
}

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
		taken := min(len(piece), muxHeader-len(g.header))
		g.header, piece = append(g.header, piece[:taken]...), piece[taken:]
		if len(g.header) < muxHeader {
			return nil
		}
		kind, flags := g.header[1], binary.BigEndian.Uint16(g.header[2:])
		if kind == muxTypePing || flags&muxFlagSYN != 0 {
			return errHostileFrame
		}
		if kind == muxTypeData {
			g.body = binary.BigEndian.Uint32(g.header[8:])
		}
		g.header = g.header[:0]
	}
	return nil
}
