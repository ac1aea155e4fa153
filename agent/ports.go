package agent

import (
	"context"
	"fmt"
	"slices"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

// Port is a TCP port of the guest on which a program listens.
type Port struct {
	Number uint16 `json:"number"`
	// Loopback says that only the guest's own programs reach it.
	Loopback bool `json:"loopback,omitempty"`
	// Program is the name of the one that listens, if it is known.
	Program string `json:"program,omitempty"`
}

const (
	// MaxPorts bounds the ports of which a guest tells; others are left out.
	MaxPorts = 128

	// maxProgram bounds a program's name, in characters. Linux cuts it to 15.
	maxProgram = 32
)

// SamePorts tells whether the same ports are reached in the same way,
// whichever programs listen.
func SamePorts(a, b []Port) bool {
	return slices.EqualFunc(a, b, func(a, b Port) bool { return a.Number == b.Number && a.Loopback == b.Loopback })
}

// Ports returns the ports on which the guest's programs listen, in their order,
// as soon as they are others than those that are known.
func (c *Client) Ports(ctx context.Context, known []Port) ([]Port, error) {
	var ports []Port
	if err := c.call(ctx, wire.MethodPorts, known, &ports); err != nil {
		return nil, fmt.Errorf("cannot learn on which ports the guest listens: %w", err)
	}
	return boundPorts(ports), nil
}

// boundPorts makes of what a guest says what [Client.Ports] promises.
func boundPorts(ports []Port) []Port {
	slices.SortStableFunc(ports, func(a, b Port) int { return int(a.Number) - int(b.Number) })
	ports = slices.CompactFunc(ports, func(a, b Port) bool { return a.Number == b.Number })
	ports = slices.DeleteFunc(ports, func(p Port) bool { return p.Number == 0 })
	ports = slices.Clone(ports[:min(len(ports), MaxPorts)])
	for i := range ports {
		ports[i].Program = boundProgram(ports[i].Program)
	}
	return ports
}

// boundProgram is a name without what would not be shown as one.
func boundProgram(name string) string { return printable(name, maxProgram) }
