package machine

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/sourcery-zone/sandbox/qmp"
)

// upgradeQMP is the protocol name of GET /v1/qmp.
const upgradeQMP = "qmp"

// serveQMP gives the client a monitor of its own. The one connection that QEMU offers is shared by all.
func (v *supervisor) serveQMP(w http.ResponseWriter, r *http.Request) {
	if !v.reached(StageQEMU) {
		http.Error(w, "QEMU does not answer on its monitor yet: try again in a moment", http.StatusServiceUnavailable)
		return
	}
	conn, ok := hijack(w, r, upgradeQMP)
	if !ok {
		return
	}
	o := qmp.ServeOptions{Allow: allowHarmless}
	if r.FormValue("unsafe") == "true" {
		o.Allow = v.logDangerous
	}
	if err := qmp.Serve(context.WithoutCancel(r.Context()), conn, v.monitor, o); err != nil {
		v.log.Info("a QMP connection ended", "err", err)
	}
}

func allowHarmless(command string) error {
	if reason := qmp.Risk(command); reason != "" {
		return fmt.Errorf("%s %s: it takes --unsafe, or ?unsafe=true", command, reason)
	}
	return nil
}

// logDangerous allows everything, and keeps what may explain the end of the sandbox.
func (v *supervisor) logDangerous(command string) error {
	if qmp.Risk(command) != "" {
		v.log.Warn("a dangerous QMP command was given", "command", command)
	}
	return nil
}

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

// DialMonitor is DialQMP without a client: QMP is spoken on the connection, from the greeting on.
func (s *Sandbox) DialMonitor(ctx context.Context, dangerous bool) (net.Conn, error) {
	if !s.held() {
		return nil, s.notRunning(s.State())
	}
	conn, err := s.upgrade(ctx, fmt.Sprintf("qmp?unsafe=%t", dangerous), upgradeQMP)
	if err != nil {
		return nil, fmt.Errorf("opening the monitor of %s: %w", s.Name, err)
	}
	return &monitorConn{conn}, nil
}

// monitorConn can be half closed: who has no more commands still wants the replies.
type monitorConn struct{ *bufferedConn }

func (c *monitorConn) CloseWrite() error { return c.Conn.(*net.UnixConn).CloseWrite() }
