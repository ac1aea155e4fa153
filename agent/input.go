package agent

import (
	"fmt"
	"math"

	"golang.org/x/crypto/ssh"
)

// RequestReportInput is the channel request, before the one that starts a
// command, which asks the guest to say by [RequestInputRead] how much of its
// input the command has read: once when that is all of the first data, which
// must be at most [FirstInput] bytes for it, and once at the command's end.
const (
	RequestReportInput = "report-input@sandbox"
	RequestInputRead   = "input-read@sandbox"
)

// FirstInput is how many bytes of input a guest can watch being read: what one
// buffer of a pipe holds. The smallest page of a processor that we have has as
// many.
const FirstInput = 4096

// InputRead is the payload of [RequestInputRead].
type InputRead struct{ Bytes uint64 }

// A Taker is an input that wants to know how much of it the command has read,
// so that the rest stays with whoever comes next.
type Taker interface {
	// Taken is told the number of bytes from the beginning. The first call
	// comes when the command has read all that the first Read returned, if that
	// was no more than [FirstInput], and the last call before Wait returns. A
	// guest that is too old to know says math.MaxInt64 before the first Read.
	Taken(bytes int64)
}

// askInputReports asks for what a Taker wants to know.
func (c *Cmd) askInputReports(channel ssh.Channel) error {
	taker, ok := c.Stdin.(Taker)
	if !ok {
		return nil
	}
	accepted, err := channel.SendRequest(RequestReportInput, true, nil)
	if err != nil {
		return fmt.Errorf("asking for reports: %w", noEOF(err))
	}
	if !accepted {
		taker.Taken(math.MaxInt64)
	}
	return nil
}

// heedInputRead tells a Taker what the guest has said.
func (c *Cmd) heedInputRead(request *ssh.Request) {
	taker, ok := c.Stdin.(Taker)
	var read InputRead
	if ok && request.Type == RequestInputRead && ssh.Unmarshal(request.Payload, &read) == nil {
		taker.Taken(int64(min(read.Bytes, math.MaxInt64)))
	}
}
