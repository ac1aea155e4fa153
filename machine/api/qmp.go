package api

import (
	"context"
	"net"
)

// QMPRequest asks for QEMU's monitor, as QEMU itself offers it.
type QMPRequest struct {
	Unsafe bool `json:"unsafe,omitempty"` // also commands for which there is a qmp.Risk
}

const monitor call[QMPRequest, nothing] = "qmp"

// QMP opens a connection on which QMP is spoken, from the greeting on. It can be half
// closed. The caller closes it.
func (c *Client) QMP(ctx context.Context, r QMPRequest) (net.Conn, error) {
	return monitor.open(ctx, c, r)
}
