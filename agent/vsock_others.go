//go:build !linux

package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
)

func dialVsock(context.Context, uint32, uint32) (net.Conn, error) {
	return nil, fmt.Errorf("vsock on %s: %w; use the serial transport", runtime.GOOS, errors.ErrUnsupported)
}

func retryVsock(error) bool { return false }
