//go:build linux

package guest

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The pauses between two looks at who listens, which the kernel tells nobody.
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
		found, err := dumpListeners()
		if err != nil {
			return nil, err
		}
		ports := programs.ports("/proc", found, s.reachableAt())
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
func (l *listeners) ports(proc string, found []listener, address netip.Addr) []agent.Port {
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
	return ports
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

// The messages of sock_diag(7), inet_diag_req_v2 and inet_diag_msg.
const (
	diagRequestSize = 56
	diagAnswerSize  = 72
	diagListening   = 1 << 10 // of the states, TCP_LISTEN
)

// diagRequest asks for the sockets of a family that listen.
type diagRequest struct{ family uint8 }

func (r diagRequest) Len() int { return diagRequestSize }

func (r diagRequest) Serialize() []byte {
	b := make([]byte, diagRequestSize)
	b[0], b[1] = r.family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[4:], diagListening)
	return b
}

// dumpListeners asks the kernel who listens. Its tables in /proc say it as well, but
// with them it looks through the place of every connection that there could be, which
// takes an emulated guest a tenth of a second.
func dumpListeners() ([]listener, error) {
	var found []listener
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		request := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
		request.AddData(diagRequest{family})
		answers, err := request.Execute(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY)
		if err != nil {
			return nil, fmt.Errorf("cannot look who listens: %w", err)
		}
		for _, answer := range answers {
			if s, ok := parseListener(answer); ok && len(found) < maxListeners {
				found = append(found, s)
			}
		}
	}
	return found, nil
}

func parseListener(answer []byte) (s listener, ok bool) {
	if len(answer) < diagAnswerSize {
		return s, false
	}
	address := answer[8:24]
	if answer[0] == unix.AF_INET {
		address = address[:4]
	}
	s.address, ok = netip.AddrFromSlice(address)
	s.address = s.address.Unmap()
	s.port, s.inode = binary.BigEndian.Uint16(answer[4:]), uint64(binary.NativeEndian.Uint32(answer[68:]))
	return s, ok
}
