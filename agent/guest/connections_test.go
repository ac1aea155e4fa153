//go:build linux

package guest

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/internal/ownthread"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestConnectionsFromBeforeEndAndOwnOnesDoNot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may make a network namespace: run the test as root")
	}
	ownthread.Run(func() {
		if err := errors.Join(unix.Unshare(unix.CLONE_NEWNET), addAddresses("192.0.2.1/32", "2001:db8::1/128")); err != nil {
			t.Error(err)
			return
		}
		ends := map[string]bool{"192.0.2.1": true, "2001:db8::1": true, "127.0.0.1": false, "::1": false}
		conns := map[string]net.Conn{}
		for address := range ends {
			l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
			if err != nil {
				t.Error(err)
				return
			}
			defer l.Close()
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			conns[address] = c
		}
		asked, err := connecting("192.0.2.1")
		if err != nil {
			t.Error(err)
			return
		}
		if err := endConnections(); err != nil {
			t.Error(err)
		}
		if errno, err := unix.GetsockoptInt(asked, unix.SOL_SOCKET, unix.SO_ERROR); errno != 0 || err != nil {
			t.Errorf("one that is being made ends: %v, %v", unix.Errno(errno), err)
		}
		for address, want := range ends {
			_ = conns[address].SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			_, err := conns[address].Read(make([]byte, 1))
			if ended := !errors.Is(err, os.ErrDeadlineExceeded); ended != want {
				t.Errorf("the connection to %s: %v", address, err)
			}
		}
	})
}

// connecting is a socket of a connection to an address that is not answered yet, as others wait to be accepted.
func connecting(address string) (int, error) {
	to := &unix.SockaddrInet4{Addr: [4]byte(net.ParseIP(address).To4())}
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err == nil {
		err = errors.Join(unix.Bind(listener, to), unix.Listen(listener, 0))
	}
	if err != nil {
		return -1, err
	}
	bound, err := unix.Getsockname(listener)
	for err == nil {
		var fd, state int
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0); err != nil {
			break
		}
		if err := unix.Connect(fd, bound); err != nil && err != unix.EINPROGRESS {
			return -1, err
		}
		if state, err = tcpState(fd); err == nil && state == netlink.TCP_SYN_SENT {
			return fd, nil
		}
	}
	return -1, err
}

func tcpState(fd int) (int, error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, err
	}
	return int(info.State), nil
}

// addAddresses gives the loopback some more addresses.
func addAddresses(addresses ...string) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	errs := []error{netlink.LinkSetUp(lo)}
	for _, text := range addresses {
		a, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD // so that it can be used soon
		err = netlink.AddrAdd(lo, a)
		for err == nil && !reachable(a.IP) {
			time.Sleep(time.Millisecond) // as the kernel makes the route to it in a worker of its own
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func reachable(address net.IP) bool {
	routes, err := netlink.RouteGet(address)
	return err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL // and not one that says that there is none
}
