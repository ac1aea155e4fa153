package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/sourcery-zone/sandbox/network/stack"
)

// dialLoopback connects to a port of the guest's own loopback, by way of its agent.
func (v *supervisor) dialLoopback(ctx context.Context, port uint16) (stack.HalfConn, error) {
	client := v.agentClient()
	if client == nil {
		return nil, errors.New("the guest's agent is not connected yet")
	}
	var errs []error
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := client.SSH().DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		half, ok := conn.(stack.HalfConn)
		if !ok {
			return nil, errors.Join(fmt.Errorf("a connection to the guest is a %T", conn), conn.Close())
		}
		return half, nil
	}
	return nil, errors.Join(errs...)
}
