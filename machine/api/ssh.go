package api

import (
	"context"
	"net"
)

const ssh call[nothing, nothing] = "ssh"

// SSH opens a connection on which the guest's agent speaks SSH, authenticated
// already. The caller closes it.
func (c *Client) SSH(ctx context.Context) (net.Conn, error) {
	return ssh.open(ctx, c, nothing{})
}
