package machine

import (
	"context"
	"fmt"
	"net"

	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/qmp"
)

// DialQMP returns a client of the sandbox's monitor after its handshake. Commands for which there is a
// qmp.Risk are refused unless dangerous is set. The caller closes the client.
func (s *Sandbox) DialQMP(ctx context.Context, dangerous bool) (*qmp.Client, error) {
	conn, err := s.DialMonitor(ctx, dangerous)
	if err != nil {
		return nil, err
	}
	client := qmp.NewClient(conn, qmp.Options{})
	if err := client.Handshake(ctx); err != nil {
		return nil, fmt.Errorf("opening the monitor of %s: %w", s.Name, err)
	}
	return client, nil
}

// DialMonitor is DialQMP without a client: QMP is spoken on the connection, from the greeting on. It can be
// half closed: who has no more commands still wants the replies.
func (s *Sandbox) DialMonitor(ctx context.Context, dangerous bool) (net.Conn, error) {
	if !s.held() {
		return nil, s.NotRunning(s.State())
	}
	conn, err := s.api().QMP(ctx, api.QMPRequest{Unsafe: dangerous})
	if err != nil {
		return nil, fmt.Errorf("opening the monitor of %s: %w", s.Name, err)
	}
	return conn, nil
}
