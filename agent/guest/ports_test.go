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

func TestListenersArePortsWithPrograms(t *testing.T) {
	proc := t.TempDir()
	socket := func(address string, inode uint64) listener {
		at := netip.MustParseAddrPort(address)
		return listener{at.Addr(), at.Port(), inode}
	}
	found := []listener{
		socket("127.0.0.1:3000", 1), socket("0.0.0.0:8080", 2), socket("10.0.2.15:8081", 3),
		socket("172.17.0.1:4000", 4), // a bridge
		socket("127.0.0.53:53", 5),
		socket("[::1]:3000", 8), socket("[::]:3001", 9), socket("[::1]:8080", 10),
	}
	for process, socket := range map[string]int{"7": 1, "12": 9} {
		if err := os.MkdirAll(filepath.Join(proc, process, "fd"), 0o755); err != nil {
			t.Fatal(err)
		}
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
		if got := programs.ports(proc, slices.Clone(found), netip.MustParseAddr("10.0.2.15")); !slices.Equal(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if err := os.RemoveAll(filepath.Join(proc, "7")); err != nil {
			t.Fatal(err)
		}
	}
	var many []listener
	for i := range 10_000 {
		many = append(many, listener{netip.IPv4Unspecified(), uint16(i + 1), uint64(100 + i)})
	}
	if got := programs.ports(proc, many, netip.Addr{}); len(got) != agent.MaxPorts {
		t.Errorf("got %d ports", len(got))
	}
	for _, answer := range [][]byte{nil, make([]byte, diagAnswerSize-1)} {
		if s, ok := parseListener(answer); ok {
			t.Errorf("%d bytes are %+v", len(answer), s)
		}
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
