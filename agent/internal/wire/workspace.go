package wire

import (
	"encoding/binary"
	"fmt"
	"io"
)

// SubsystemWorkspace is the SSH subsystem by which the host reads, and puts back, what the guest has changed in a
// copy-on-write share. The host writes one [WorkspaceRequest] in JSON a line; each is answered by frames, of which the
// last is of the kind [FrameEnd].
const SubsystemWorkspace = "sandbox-workspace"

// Operations of a [WorkspaceRequest].
const (
	WorkspaceList    = "list"    // → a FrameEntry for each name of the upper layer
	WorkspaceRead    = "read"    // → FrameContent, as often as it takes
	WorkspaceSum     = "sum"     // → FrameContent, the SHA-256 of a file's content
	WorkspaceKeep    = "keep"    // → nothing, once a directory needs nothing of the host's any more
	WorkspaceRestore = "restore" // → nothing, once the path is as the host has it
	WorkspaceRefresh = "refresh" // → nothing, once the guest has forgotten what it knew of the host's files
)

// WorkspaceRequest asks about one copy-on-write share.
type WorkspaceRequest struct {
	Operation string `json:"operation"`
	Tag       string `json:"tag"`
	// Path is relative to the share's directory.
	Path RawString `json:"path,omitempty"`
}

// WorkspaceEntry is the payload of a [FrameEntry]. A directory comes before what is in it.
type WorkspaceEntry struct {
	Path RawString `json:"path"`
	// Mode is st_mode of stat(2). Zero says that the name was removed.
	Mode uint32    `json:"mode,omitempty"`
	Size int64     `json:"size,omitempty"`
	Link RawString `json:"link,omitempty"`
	// Whole says of a directory that it has nothing of the host's directory of that name: what is not told of it is not
	// there.
	Whole bool `json:"whole,omitempty"`
	// Moved says of such a directory that it was the host's under another name, and of which the guest still shows what
	// it has not changed.
	Moved bool `json:"moved,omitempty"`
}

// WorkspaceEnd is the payload of a [FrameEnd].
type WorkspaceEnd struct {
	Error string `json:"error,omitempty"`
}

// Kinds of the frames of [SubsystemWorkspace].
const (
	FrameEntry   = 'e'
	FrameContent = 'c'
	FrameEnd     = 'z'
)

// MaxWorkspaceFrame bounds a frame's payload, in bytes. An entry has two paths of at most 4096 bytes, of which JSON
// makes six times as much at worst.
const MaxWorkspaceFrame = 64 << 10

// WriteFrame writes a frame: its kind in a byte, the length of its payload in four, and that.
func WriteFrame(w io.Writer, kind byte, payload []byte) error {
	if len(payload) > MaxWorkspaceFrame {
		return fmt.Errorf("a frame of %d bytes is too long", len(payload))
	}
	header := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(payload)))
	if _, err := w.Write(header); err != nil {
		return err
	}
	_, err := w.Write(payload)
	return err
}

// ReadFrame reads a frame into buf, which is made larger if need be, and returns the payload.
func ReadFrame(r io.Reader, buf []byte) (kind byte, payload []byte, err error) {
	var header [5]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, buf, NoEOF(err)
	}
	size := binary.BigEndian.Uint32(header[1:])
	if size > MaxWorkspaceFrame {
		return 0, buf, fmt.Errorf("a frame of %d bytes is too long", size)
	}
	if cap(buf) < int(size) {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	_, err = io.ReadFull(r, buf)
	return header[0], buf, NoEOF(err)
}
