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
	"testing"
	"time"
)

// take opens a TCP and a UDP port of the same number on address and returns it.
func take(t *testing.T, address string) int {
	t.Helper()
	for range freePortTries {
		listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
		if err != nil {
			t.Skipf("this machine cannot listen on %s, which the test needs: %v", address, err)
		}
		_, port, _ := net.SplitHostPort(listener.Addr().String())
		conn, err := net.ListenPacket("udp", net.JoinHostPort(address, port))
		if err != nil {
			listener.Close()
			continue
		}
		t.Cleanup(func() { listener.Close(); conn.Close() })
		n, _ := strconv.Atoi(port)
		return n
	}
	t.Fatal("no port is free for both TCP and UDP")
	return 0
}

func TestCheckFreeNamesWhoHoldsThePort(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "0.0.0.0", "::1"} {
		t.Run(address, func(t *testing.T) {
			port := take(t, address)
			for _, proto := range []string{TCP, UDP} {
				f := Forward{HostIP: netip.MustParseAddr(address), HostPort: port, GuestPort: 80, Proto: proto}
				if address == "0.0.0.0" {
					f.HostIP = loopback // taken together with all others
				}
				err := f.CheckFree()
				want := fmt.Sprintf("(process %d): end the program that holds it, or choose another port", os.Getpid())
				if err == nil || !strings.Contains(err.Error(), f.address()+" is taken by ") || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v; want %q", proto, err, want)
				}
			}
		})
	}
}

// Who keeps a port for others must not be woken by their packets.
func TestPortIsKeptWithoutBeingWatched(t *testing.T) {
	for _, proto := range []string{TCP, UDP} {
		socket, _, err := Forward{Proto: proto, HostIP: loopback}.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer socket.Close()
		if err := socket.SetDeadline(time.Time{}); !errors.Is(err, os.ErrNoDeadline) { // which files have that are not watched
			t.Errorf("a port of %s is watched by Go's poller (%v)", proto, err)
		}
	}
}

func TestCheckFreeLeavesThePortFree(t *testing.T) {
	for _, proto := range []string{TCP, UDP} {
		port, err := FreePort(proto, loopback)
		if err != nil {
			t.Fatal(err)
		}
		f := Forward{HostIP: loopback, HostPort: port, GuestPort: 80, Proto: proto}
		for range 2 {
			if err := f.CheckFree(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestCheckFreeNamesTheAddressThatTheHostLacks(t *testing.T) {
	// RFC 5737: for documentation, so nobody has it.
	err := Forward{HostIP: netip.MustParseAddr("192.0.2.1"), HostPort: 0, GuestPort: 80, Proto: TCP}.CheckFree()
	if err == nil || !strings.Contains(err.Error(), "no address 192.0.2.1") {
		t.Errorf("got %v", err)
	}
}

func TestCheckFreeOfAPrivilegedPort(t *testing.T) {
	if os.Geteuid() == 0 || firstUnprivilegedPort() <= 80 {
		t.Skip("this user may open every port: run the tests as an ordinary user to see this one")
	}
	err := Forward{HostIP: loopback, HostPort: 80, GuestPort: 80, Proto: TCP}.CheckFree()
	if err == nil || !strings.Contains(err.Error(), "as in 8080:80") {
		t.Errorf("got %v", err)
	}
}

func TestResolve(t *testing.T) {
	port := take(t, "127.0.0.1")
	if _, err := (Forward{HostIP: loopback, HostPort: port, GuestPort: 80, Proto: TCP}).Resolve(); err == nil {
		t.Error("a taken port is resolved")
	}
	f, err := Forward{HostIP: loopback, GuestPort: 80, Proto: UDP}.Resolve()
	if err != nil || f.HostPort == 0 || f.GuestPort != 80 || f.Proto != UDP {
		t.Errorf("got %v, %v", f, err)
	}
}

func TestSSHForward(t *testing.T) {
	port := take(t, "127.0.0.1")
	free, err := FreePort(TCP, loopback)
	if err != nil {
		t.Fatal(err)
	}
	got, err := SSHForward(free, nil)
	if want := (Forward{HostIP: loopback, HostPort: free, GuestPort: 22, Proto: TCP}); err != nil || got != want {
		t.Errorf("the free port: %v, %v; want %v", got, err, want)
	}
	if _, err := SSHForward(port, nil); err == nil || !strings.Contains(err.Error(), "is taken") {
		t.Errorf("the taken port: %v", err)
	}
	for _, port := range []int{-1, 65536 + free} { // the latter is not to be taken for the free one
		if _, err := SSHForward(port, nil); err == nil || !strings.Contains(err.Error(), "from 1 to 65535") {
			t.Errorf("port %d: %v", port, err)
		}
	}
	if _, err := SSHForward(free, []Forward{{HostIP: loopback, HostPort: free, GuestPort: 80, Proto: TCP}}); err == nil || !strings.Contains(err.Error(), "want the same port") {
		t.Errorf("a port that another forward has: %v", err)
	}
}

func TestSSHForwardWithoutAWishMovesOn(t *testing.T) {
	// Whether it is ours or somebody else's does not matter.
	if listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", DefaultSSHPort)); err == nil {
		got, err := SSHForward(0, []Forward{{HostIP: loopback, HostPort: DefaultSSHPort, GuestPort: 80, Proto: UDP}})
		if err != nil || got.HostPort == DefaultSSHPort || got.HostPort == 0 {
			t.Errorf("with the default taken: %v, %v", got, err)
		}
		listener.Close()
	}
	got, err := SSHForward(0, []Forward{{HostIP: netip.IPv4Unspecified(), HostPort: DefaultSSHPort, GuestPort: 80, Proto: TCP}})
	if err != nil || got.HostPort == DefaultSSHPort || got.HostPort == 0 || got.GuestPort != 22 {
		t.Errorf("with the default in use by another forward: %v, %v", got, err)
	}
}

func TestListeningInode(t *testing.T) {
	const (
		tcp4 = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0000000000000000 100 0 0 10 0\n"
		any6 = "   1: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 4712 1 0 100\n"
		open = "   2: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 4713 1 0000000000000000 20 4 30 10 -1\n"
		head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	)
	for _, test := range []struct {
		name, line, ip string
		port           int
		want           string
	}{
		{"listens", tcp4, "127.0.0.1", 8080, "4711"},
		{"listens, all wanted", tcp4, "0.0.0.0", 8080, "4711"},
		{"another address", tcp4, "127.0.0.2", 8080, ""},
		{"another port", tcp4, "127.0.0.1", 8081, ""},
		{"listens on all", any6, "127.0.0.1", 8080, "4712"},
		{"a connection", open, "127.0.0.1", 8080, ""},
		{"the heading", head, "127.0.0.1", 8080, ""},
		{"nothing", "\n", "127.0.0.1", 8080, ""},
	} {
		if got := listeningInode(test.line, forward(test.ip, test.port, 80, TCP)); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestFreePortReportsAnAddressThatTheHostLacks(t *testing.T) {
	_, err := FreePort(TCP, netip.MustParseAddr("192.0.2.1"))
	if err == nil || !strings.Contains(err.Error(), "192.0.2.1") || !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("got %v", err)
	}
}
