//go:build linux

package guest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
)

const tcpColumns = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

func tcpLine(address, state string, inode int) string {
	return fmt.Sprintf("   0: %s 00000000:0000 %s 00000000:00000000 00:00000000 00000000  1000        0 %d 1 0000000000000000 100 0 0 10 0\n", address, state, inode)
}

func TestListenersOfTheKernelsTables(t *testing.T) {
	proc := t.TempDir()
	dirs := []string{"self/net", "7/fd", "12/fd"}
	for _, dir := range dirs {
		if err := os.MkdirAll(filepath.Join(proc, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(proc, "self/net/tcp"), tcpColumns+
		tcpLine("0100007F:0BB8", "0A", 1)+ // 127.0.0.1:3000
		tcpLine("00000000:1F90", "0A", 2)+ // 0.0.0.0:8080
		tcpLine("0F02000A:1F91", "0A", 3)+ // 10.0.2.15:8081
		tcpLine("010011AC:0FA0", "0A", 4)+ // 172.17.0.1:4000, a bridge
		tcpLine("3500007F:0035", "0A", 5)+ // 127.0.0.53:53
		tcpLine("0100007F:0050", "01", 6)+ // no one listens from here on
		tcpLine("00000000:0051", "0A", 7))
	write(t, filepath.Join(proc, "self/net/tcp6"), tcpColumns+
		tcpLine("00000000000000000000000001000000:0BB8", "0A", 8)+ // [::1]:3000
		tcpLine("00000000000000000000000000000000:0BB9", "0A", 9)+ // [::]:3001
		tcpLine("00000000000000000000000001000000:1F90", "0A", 10)) // [::1]:8080
	for process, socket := range map[string]int{"7": 1, "12": 9} {
		write(t, filepath.Join(proc, process, "comm"), "program"+process+"\n")
		if err := os.Symlink(fmt.Sprintf("socket:[%d]", socket), filepath.Join(proc, process, "fd/3")); err != nil {
			t.Fatal(err)
		}
	}
	programs := listeners{}
	want := []agent.Port{
		{Number: 3000, Loopback: true, Program: "program7"}, {Number: 3001, Program: "program12"}, {Number: 8080}, {Number: 8081},
	}
	for range 2 { // the second time, nobody is looked for
		got, err := programs.ports(proc, netip.MustParseAddr("10.0.2.15"))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		if err := os.RemoveAll(filepath.Join(proc, "7")); err != nil {
			t.Fatal(err)
		}
	}
	var many strings.Builder
	many.WriteString(tcpColumns)
	for i := range 10_000 {
		many.WriteString(tcpLine(fmt.Sprintf("00000000:%04X", i+1), "0A", 100+i))
	}
	write(t, filepath.Join(proc, "self/net/tcp"), many.String())
	if err := os.Remove(filepath.Join(proc, "self/net/tcp6")); err != nil { // as without IPv6
		t.Fatal(err)
	}
	if got, err := programs.ports(proc, netip.Addr{}); err != nil || len(got) != agent.MaxPorts || len(programs) > maxListeners {
		t.Errorf("got %d ports, %v, and %d are remembered", len(got), err, len(programs))
	}
}

func TestPortsAreToldWhenTheyChange(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	mine := agent.Port{Number: port, Loopback: true, Program: strings.TrimSpace(string(comm))}
	s := &service{progress: newProgress(uptime)}
	var known []agent.Port
	until := func(want bool) {
		t.Helper()
		for slices.Contains(known, mine) != want { // other programs of this machine come and go
			if known, err = s.Ports(ctx, known); err != nil {
				t.Fatal(err)
			}
		}
	}
	until(true)
	l.Close()
	until(false)
}
