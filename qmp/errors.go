package qmp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"syscall"
)

// The classes of error that QEMU's QAPI schema knows (QapiErrorClass). Nearly everything is
// ClassGenericError; the others exist because programs need to tell them apart.
const (
	ClassGenericError    = "GenericError"
	ClassCommandNotFound = "CommandNotFound"
	ClassDeviceNotActive = "DeviceNotActive"
	ClassDeviceNotFound  = "DeviceNotFound"
	ClassKVMMissingCap   = "KVMMissingCap"
)

// ClassLibvirt is the class of an error that is libvirt's own and not QEMU's.
const ClassLibvirt = "LibvirtError"

// ErrProtocol is matched by the error of a connection on which the monitor sent something that is
// not QMP, or that answers nothing that was asked.
var ErrProtocol = errors.New("the monitor broke the QMP protocol")

// Error is QEMU's refusal of one command. The connection is as good as before.
type Error struct {
	Class   string // one of the Class constants, or a newer one
	Desc    string // QEMU's own words
	Command string // the command that was refused
}

func (e *Error) Error() string {
	if e.Class == ClassLibvirt {
		return fmt.Sprintf("libvirt did not carry out %q: %s", e.Command, e.Desc)
	}
	return fmt.Sprintf("QEMU refused %q: %s (%s)", e.Command, e.Desc, e.Class)
}

// IsClass reports whether err is, or wraps, a refusal by QEMU with the given class.
func IsClass(err error, class string) bool {
	refused, ok := errors.AsType[*Error](err)
	return ok && refused.Class == class
}

// endOfConnection turns what a read returned into the reason that the connection ended with. rest
// is what had arrived and was not understood.
func endOfConnection(err error, rest io.Reader) error {
	var (
		syntax *json.SyntaxError
		typing *json.UnmarshalTypeError
	)
	switch {
	case hungUp(err):
		return fmt.Errorf("the monitor closed the connection: %w", io.EOF)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the monitor closed the connection in the middle of a message: %w", io.ErrUnexpectedEOF)
	case errors.As(err, &syntax):
		return fmt.Errorf("%w: %s (%v)", ErrProtocol, describeGarbage(rest), err)
	case errors.As(err, &typing):
		return fmt.Errorf("%w: a message has the wrong form (%v)", ErrProtocol, err)
	default:
		return fmt.Errorf("cannot read from the monitor: %w", err)
	}
}

// describeGarbage quotes the beginning of what is not JSON, because it often tells what the socket
// really belongs to. A message that merely became damaged is not quoted: it may hold a secret.
func describeGarbage(rest io.Reader) string {
	start := make([]byte, 60)
	n, _ := io.ReadFull(rest, start)
	start = bytes.TrimSpace(start[:n])
	if len(start) == 0 || start[0] == '{' {
		return "a message is damaged"
	}
	return fmt.Sprintf("it sent %q, which is no message; is this really a QMP socket?", start)
}

// hungUp reports whether err is one of the ways in which a socket says that its peer is gone. A
// QEMU that dies with a command unread resets the connection; one that dies before makes writes fail.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}
