package network

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net"
	"slices"
)

// Mode is what a guest sees of the network.
type Mode string

const (
	// ModePublic gives the guest the public Internet and nothing that is nearer: not the host, nor its loopback, nor
	// the networks around it.
	ModePublic Mode = "public"
	// ModeAllowlist gives the guest what rules open (see policy.ParseRule), and nothing else.
	ModeAllowlist Mode = "allowlist"
	// ModeAsk is ModeAllowlist whose user is asked for what no rule opens.
	ModeAsk Mode = "ask"
	// ModeUser gives the guest the network that the host's user has, through QEMU's user-mode stack. The guest
	// also reaches what listens on the host's loopback, at 10.0.2.2.
	ModeUser Mode = "user"
	// ModeNone gives the guest no network device at all.
	ModeNone Mode = "none"
)

// Modes are all modes, the default first.
func Modes() []Mode { return []Mode{ModePublic, ModeAllowlist, ModeAsk, ModeUser, ModeNone} }

// Compare orders modes by what they open to a guest: it is negative if m opens less than other, and positive if it opens
// more. An answer can open what an allowlist does not.
func (m Mode) Compare(other Mode) int {
	order := []Mode{ModeNone, ModeAllowlist, ModeAsk, ModePublic, ModeUser}
	return cmp.Compare(slices.Index(order, m), slices.Index(order, other))
}

// Judged tells whether the mode's network is ours, and judges what a guest reaches.
func (m Mode) Judged() bool { return m == ModePublic || m == ModeAllowlist || m == ModeAsk }

// ParseMode reads the name of a mode.
func ParseMode(name string) (Mode, error) {
	if m := Mode(name); slices.Contains(Modes(), m) {
		return m, nil
	}
	return "", fmt.Errorf("%q is not a network mode: use %s, %s, %s, %s or %s", name, ModePublic, ModeAllowlist, ModeAsk, ModeUser, ModeNone)
}

// MAC returns the hardware address of the network device of the sandbox called name: always the same for one
// name, and unlikely to be the same for two. It begins with 52:54:00, the locally administered prefix by which
// people know QEMU's devices.
func MAC(name string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(name))
	return net.HardwareAddr{0x52, 0x54, 0x00, sum[0], sum[1], sum[2]}
}
