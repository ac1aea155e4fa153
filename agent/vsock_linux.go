package agent

import (
	"context"
	"errors"
	"net"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
)

func dialVsock(ctx context.Context, cid, port uint32) (net.Conn, error) {
	conn, err := vsock.DialContext(ctx, cid, port, nil)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// retryVsock reports whether err is one that a guest causes which has not
// come far enough yet: no driver, no listener.
func retryVsock(err error) bool {
	for _, errno := range []unix.Errno{
		unix.ECONNREFUSED, unix.ECONNRESET, unix.ETIMEDOUT, unix.EHOSTUNREACH,
		unix.ENETUNREACH, unix.ENODEV, unix.EINTR,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
