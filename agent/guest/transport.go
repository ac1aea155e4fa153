//go:build linux

package guest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
)

const (
	// portPoll is the pause between two looks for something that tells nobody
	// when it comes: the serial port's name in sysfs, and the host's end of
	// the port. Both are there at the first look in an ordinary boot.
	portPoll = 10 * time.Millisecond

	// portTimeout bounds the wait for the serial port.
	portTimeout = 30 * time.Second
)

// listenVsock listens for the host, whatever the guest's CID: a guest that is
// restored, or forked, gets another one while it runs, and a listener that is
// bound to the one it had is not found by it any more.
func listenVsock(port uint32) (net.Listener, error) {
	listener, err := vsock.ListenContextID(unix.VMADDR_CID_ANY, port, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on vsock port %d (are the vsock modules in the initrd?): %w", port, err)
	}
	return listener, nil
}

// serialPort finds the device of the virtio-serial port with the given name,
// waiting for it if need be.
func serialPort(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, portTimeout)
	defer cancel()
	for {
		// The pattern is a valid one, and nothing else can fail.
		names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, file := range names {
			found, err := os.ReadFile(file)
			if err == nil && strings.TrimSpace(string(found)) == name {
				return filepath.Join("/dev", filepath.Base(filepath.Dir(file))), nil
			}
		}
		select {
		case <-time.After(portPoll):
		case <-ctx.Done():
			return "", fmt.Errorf("no virtio-serial port is named %q: %w", name, ctx.Err())
		}
	}
}

// openPort opens the port's device and waits until the host holds the other
// end: until then, reading from it says that the stream has ended.
func openPort(ctx context.Context, device string) (*os.File, error) {
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", device, err)
	}
	for {
		state := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		_, err := unix.Poll(state, 0)
		if err == nil && state[0].Revents&unix.POLLHUP == 0 {
			return os.NewFile(uintptr(fd), device), nil
		}
		select {
		case <-time.After(portPoll):
		case <-ctx.Done():
			unix.Close(fd)
			return nil, ctx.Err()
		}
	}
}
