package agent

import (
	"fmt"
	"math"

	"golang.org/x/crypto/ssh"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

// FirstInput is how many bytes of input a guest can watch being read.
const FirstInput = wire.FirstInput

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
	accepted, err := channel.SendRequest(wire.RequestReportInput, true, nil)
	if err != nil {
		return fmt.Errorf("asking for reports: %w", wire.NoEOF(err))
	}
	if !accepted {
		taker.Taken(math.MaxInt64)
	}
	return nil
}

// heedInputRead tells a Taker what the guest has said.
func (c *Cmd) heedInputRead(request *ssh.Request) {
	taker, ok := c.Stdin.(Taker)
	var read wire.InputRead
	if ok && request.Type == wire.RequestInputRead && ssh.Unmarshal(request.Payload, &read) == nil {
		taker.Taken(int64(min(read.Bytes, math.MaxInt64)))
	}
}
