package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// DefaultSSHPort is the host's port that leads to the guest's ssh server if nobody asks for another.
	DefaultSSHPort = 2222

	sshPort = 22

	// freePortTries bounds the search for a port that nobody in the same configuration has asked for.
	freePortTries = 100
)

// CheckFree tells whether the host's port can be opened now, and if not, what to do about it. For port 0 it
// looks at the address only. It says nothing about the next moment.
func (f Forward) CheckFree() error {
	file, _, err := f.Open()
	if err != nil {
		return err
	}
	return file.Close()
}

// PortError says why a port of the host cannot be opened, and what to do about it.
type PortError struct {
	message string
	err     error
}

func (e *PortError) Error() string { return e.message }
func (e *PortError) Unwrap() error { return e.err }

func (f Forward) explain(err error) error {
	message := fmt.Sprintf("trying to listen on the host's %s port %s: %v", f.Proto, f.address(), err)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		by := ""
		if holder := findHolder(f); holder != "" {
			by = " by " + holder
		}
		message = fmt.Sprintf("the host's %s port %s is taken%s: end the program that holds it, or choose another port", f.Proto, f.address(), by)
	case errors.Is(err, syscall.EACCES):
		message = fmt.Sprintf("the host's port %d may not be opened by this user: choose one from %d on, as in %d:%d, or allow it (sysctl net.ipv4.ip_unprivileged_port_start)", f.HostPort, firstUnprivilegedPort(), f.HostPort%1000+8000, f.GuestPort)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		message = fmt.Sprintf("this machine has no address %s to listen on: choose one of those that ip addr shows, 127.0.0.1 for this machine only, or 0.0.0.0 for all", f.HostIP)
	}
	return &PortError{message, err}
}

// Resolve returns f with a port of the host that is free now: its own, or any if that is 0.
func (f Forward) Resolve() (Forward, error) {
	if f.HostPort != 0 {
		return f, f.CheckFree()
	}
	var err error
	f.HostPort, err = FreePort(f.Proto, f.HostIP)
	return f, err
}

// Open opens the host's port, its own or any that is free if that is 0, and returns the socket, of which the caller
// is the owner, with f as it is then. A TCP socket listens.
func (f Forward) Open() (*os.File, Forward, error) {
	address := netip.AddrPortFrom(f.HostIP, uint16(f.HostPort))
	family := "4"
	if f.HostIP.Is6() {
		family = "6"
	}
	if f.Proto == UDP {
		conn, err := net.ListenPacket(UDP+family, address.String())
		if err != nil {
			return nil, f, f.explain(err)
		}
		defer conn.Close() // the file is a duplicate
		f.HostPort = conn.LocalAddr().(*net.UDPAddr).Port
		file, err := unwatched(conn.(*net.UDPConn))
		return file, f, err
	}
	listener, err := net.Listen(TCP+family, address.String())
	if err != nil {
		return nil, f, f.explain(err)
	}
	defer listener.Close()
	f.HostPort = listener.Addr().(*net.TCPAddr).Port
	file, err := unwatched(listener.(*net.TCPListener))
	return file, f, err
}

// unwatched returns a socket for one who keeps it for others: Go's poller, which watches what does not block, would wake him
// for each packet that is theirs.
func unwatched(c interface{ File() (*os.File, error) }) (*os.File, error) {
	watched, err := c.File()
	if err != nil {
		return nil, err
	}
	defer watched.Close()
	fd, err := unix.FcntlInt(watched.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), watched.Name()), nil
}

// FreePort returns a port of ip on which nobody listens. Nothing keeps it free: somebody else may open it before
// the caller does, who must then try again. The kernel hands the same port out again only after many others, so
// this is rare unless two callers ask at once; those had better hold a lock until the port is open.
func FreePort(proto string, ip netip.Addr) (int, error) {
	file, f, err := Forward{Proto: proto, HostIP: ip}.Open()
	if err != nil {
		return 0, fmt.Errorf("looking for a free %s port of %s: %w", proto, ip, err)
	}
	return f.HostPort, file.Close()
}

// SSHForward returns the forward to the guest's ssh server, on the host's loopback. The port asked for must be
// free. If none is (0), it is DefaultSSHPort if that can be had, and otherwise any free one, as several sandboxes
// run at once; the result tells. None of the others' ports is taken.
func SSHForward(asked int, others []Forward) (Forward, error) {
	f := Forward{HostIP: loopback, HostPort: asked, GuestPort: sshPort, Proto: TCP}
	if asked != 0 {
		if asked < 0 || asked > 65535 {
			return Forward{}, fmt.Errorf("%d is not a port for ssh: give one from 1 to 65535, or none to have one chosen", asked)
		}
		if err := CheckConflicts(append([]Forward{f}, others...)); err != nil {
			return Forward{}, err
		}
		return f, f.CheckFree()
	}
	f.HostPort = DefaultSSHPort
	if !f.conflictsWithAny(others) && f.CheckFree() == nil {
		return f, nil
	}
	for range freePortTries {
		var err error
		if f.HostPort, err = FreePort(f.Proto, f.HostIP); err != nil {
			return Forward{}, err
		}
		if !f.conflictsWithAny(others) {
			return f, nil
		}
	}
	return Forward{}, errors.New("no port is left for ssh beside the port forwards that were asked for: ask for one with an explicit ssh port")
}

func (f Forward) conflictsWithAny(others []Forward) bool {
	for _, other := range others {
		if f.conflicts(other) {
			return true
		}
	}
	return false
}

func firstUnprivilegedPort() int {
	const usual = 1024
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		return usual
	}
	port, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return usual
	}
	return port
}
