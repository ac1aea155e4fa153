package wire

import (
	"encoding/binary"
	"io"
)

// From yamux's specification: a frame's header is 12 bytes long, its second
// byte is the type, the next two are flags, and its last four are the length of
// the body if the type is that of data.
const (
	FrameHeader = 12
	FrameData   = 0
	FramePing   = 2
	FlagSYN     = 1
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
	return len(p) == FrameHeader && p[1] == FrameData && binary.BigEndian.Uint32(p[8:]) > 0
}
