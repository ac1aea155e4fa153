//go:build linux

package guest

import (
	"bufio"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
)

// The pauses between two looks at who listens, which the kernel tells nobody. A
// look takes an emulated guest a millisecond or so.
const (
	// portsPause is the first one: somebody who has just started a server has
	// not turned to the browser before.
	portsPause = time.Second

	// maxPortsPause is the last one, when nothing has changed for long.
	maxPortsPause = 5 * time.Second

	// portsShare is how many times as long as a look, at least, the pause after
	// it is: a guest with ten thousand open files has other things to do.
	portsShare = 20
)

// maxListeners bounds the listening sockets that are looked at.
const maxListeners = 4096

// Ports implements [server.Controller].
func (s *service) Ports(ctx context.Context, known []agent.Port) ([]agent.Port, error) {
	pause, programs := portsPause, listeners{}
	for {
		began := time.Now()
		ports, err := programs.ports("/proc", s.reachableAt())
		if err != nil {
			return nil, err
		}
		if !agent.SamePorts(ports, known) {
			return ports, nil
		}
		select {
		case <-time.After(max(pause, portsShare*time.Since(began))):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		pause = min(pause+pause/4, maxPortsPause)
	}
}

// reachableAt is the guest's address in its network, if it has one.
func (s *service) reachableAt() netip.Addr {
	prefix, err := netip.ParsePrefix(s.progress.snapshot().Network.Address)
	if err != nil {
		return netip.Addr{}
	}
	return prefix.Addr()
}

// listeners are the programs that were found to listen, by the inodes of their
// sockets. A program is looked for once, as that takes long.
type listeners map[uint64]string

// ports returns the ports on which somebody listens, whom the host can reach at
// the address or at the guest's loopback. What listens elsewhere, such as on a
// bridge of the guest's, is the guest's own affair.
func (l *listeners) ports(proc string, address netip.Addr) ([]agent.Port, error) {
	var found []listener
	for _, table := range []string{"tcp", "tcp6"} {
		more, err := readListeners(filepath.Join(proc, "self/net", table))
		if err != nil && !(table == "tcp6" && errors.Is(err, fs.ErrNotExist)) { // a kernel without IPv6
			return nil, fmt.Errorf("cannot look who listens: %w", err)
		}
		found = append(found, more...)
	}
	found = slices.DeleteFunc(found, func(s listener) bool {
		return !s.loopback() && !s.address.IsUnspecified() && s.address != address
	})
	slices.SortFunc(found, func(a, b listener) int { return cmp.Or(int(a.port)-int(b.port), cmp.Compare(a.inode, b.inode)) })
	l.learn(proc, found)
	ports := []agent.Port{}
	for _, s := range found {
		if last := len(ports) - 1; last >= 0 && ports[last].Number == s.port {
			ports[last].Loopback = ports[last].Loopback && s.loopback()
			ports[last].Program = cmp.Or(ports[last].Program, (*l)[s.inode])
			continue
		}
		if len(ports) == agent.MaxPorts {
			break
		}
		ports = append(ports, agent.Port{Number: s.port, Loopback: s.loopback(), Program: (*l)[s.inode]})
	}
	return ports, nil
}

// learn finds out whose sockets those are that were not there before, and
// forgets those that have gone.
func (l *listeners) learn(proc string, found []listener) {
	known, unknown := listeners{}, map[string]uint64{}
	for _, s := range found {
		if program, ok := (*l)[s.inode]; ok {
			known[s.inode] = program
			continue
		}
		known[s.inode] = ""
		unknown[fmt.Sprintf("socket:[%d]", s.inode)] = s.inode
	}
	*l = known
	if len(unknown) == 0 {
		return
	}
	// The youngest processes first: it is they who have begun to listen.
	processes, _ := filepath.Glob(filepath.Join(proc, "[0-9]*"))
	slices.SortFunc(processes, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(b, a)) })
	for _, process := range processes {
		files, err := os.ReadDir(filepath.Join(process, "fd"))
		if err != nil {
			continue // it has ended
		}
		for _, file := range files {
			target, _ := os.Readlink(filepath.Join(process, "fd", file.Name()))
			inode, ok := unknown[target]
			if !ok {
				continue
			}
			name, _ := os.ReadFile(filepath.Join(process, "comm"))
			known[inode] = strings.TrimSpace(string(name))
			if delete(unknown, target); len(unknown) == 0 {
				return
			}
		}
	}
}

// listener is a socket that listens.
type listener struct {
	address netip.Addr
	port    uint16
	inode   uint64
}

// loopback tells whether the guest's programs alone reach it, at one of the two
// addresses by which they know themselves.
func (s listener) loopback() bool {
	return s.address == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || s.address == netip.IPv6Loopback()
}

// readListeners reads a table of the kernel's (proc_net_tcp(5)) as far as the
// sockets in it listen: those come first.
func readListeners(table string) ([]listener, error) {
	file, err := os.Open(table)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var found []listener
	lines := bufio.NewScanner(file)
	lines.Scan() // the names of the columns
	for lines.Scan() && len(found) < maxListeners {
		s, ok := parseListener(lines.Text())
		if !ok {
			break
		}
		found = append(found, s)
	}
	return found, lines.Err()
}

func parseListener(line string) (s listener, ok bool) {
	const localAddress, state, inode, columns = 1, 3, 9, 10
	const listening = "0A"
	column := strings.Fields(line)
	if len(column) < columns || column[state] != listening {
		return s, false
	}
	address, number, _ := strings.Cut(column[localAddress], ":")
	port, err := strconv.ParseUint(number, 16, 16)
	if err != nil {
		return s, false
	}
	b, err := hex.DecodeString(address)
	if err != nil || len(b)%4 != 0 {
		return s, false
	}
	for word := range slices.Chunk(b, 4) {
		slices.Reverse(word) // each is printed as a number of a little-endian machine
	}
	if s.address, ok = netip.AddrFromSlice(b); !ok {
		return s, false
	}
	s.address, s.port = s.address.Unmap(), uint16(port)
	s.inode, err = strconv.ParseUint(column[inode], 10, 64)
	return s, err == nil
}
