package qemu

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// NIC is the guest's network card.
type NIC struct {
	MAC string

	// MTU is the size of the largest packet that the guest is told to send, in bytes. 0: nothing is told, and guests
	// take 1500. It is a feature of the device, which counts for states that are saved and loaded.
	MTU int

	Backend Netdev
}

// Netdev is what carries the frames of a NIC, in QEMU's word: a UserNetwork or a DatagramSocket.
type Netdev interface {
	// option adds the flag that makes a netdev of that id.
	option(a *argv, id string)
	validate() []error
	maxMTU() int
	// fd is the inherited descriptor that it uses, or 0.
	fd() int
	// hostNetwork tells whether QEMU itself makes connections for it.
	hostNetwork() bool
}

// UserNetwork is QEMU's own network in user space: the guest is 10.0.2.15, the host 10.0.2.2. The guest
// reaches whatever the host reaches, including services on the host's loopback, and so does a QEMU that it has taken
// over: see LaunchOptions.HostNetwork.
type UserNetwork struct {
	Forwards []Forward
	Search   []string // domains that the guest is told to append to short names
}

// Forward accepts connections on the host and passes them to the guest.
type Forward struct {
	Proto     string // "tcp" or "udp"
	HostIP    string // IPv4; always explicit, because QEMU takes an absent one for 0.0.0.0
	HostPort  int
	GuestPort int
}

// DatagramSocket carries each Ethernet frame as one datagram, without any header, to whoever has the other end. QEMU
// needs no network for it. Frames that nobody reads are lost once the socket is full, as on a wire.
type DatagramSocket struct {
	FD int // inherited, connected socket of AF_UNIX and SOCK_DGRAM
}

// HostNetwork tells whether QEMU needs this machine's network for the guest's: see LaunchOptions.
func (c Config) HostNetwork() bool {
	return c.NIC != nil && c.NIC.Backend != nil && c.NIC.Backend.hostNetwork()
}

func addNIC(a *argv, n NIC) {
	id := a.id("net")
	n.Backend.option(a, id)
	// An empty romfile leaves out the network boot ROM: nobody boots from the network, and the file
	// is in a package that may be absent.
	pairs := []string{"netdev", id, "mac", n.MAC, "romfile", ""}
	if n.MTU != 0 {
		pairs = append(pairs, "host_mtu", strconv.Itoa(n.MTU))
	}
	a.option("-device", deviceNetwork, pairs...)
}

func (n UserNetwork) option(a *argv, id string) {
	pairs := []string{
		"id", id,
		"ipv6", "off", // else guests prefer an IPv6 that leads nowhere on most hosts
	}
	for _, domain := range n.Search {
		pairs = append(pairs, "dnssearch", domain)
	}
	for _, f := range n.Forwards {
		pairs = append(pairs, "hostfwd", fmt.Sprintf("%s:%s:%d-:%d", f.Proto, f.HostIP, f.HostPort, f.GuestPort))
	}
	a.option("-netdev", "user", pairs...)
}

func (s DatagramSocket) option(a *argv, id string) {
	a.option("-netdev", "dgram", "id", id, "local.type", "fd", "local.str", strconv.Itoa(s.FD))
}

func (UserNetwork) fd() int      { return 0 }
func (s DatagramSocket) fd() int { return s.FD }

func (UserNetwork) hostNetwork() bool    { return true }
func (DatagramSocket) hostNetwork() bool { return false }

const (
	// minMTU is the least that a virtio network device may name (virtio 1.2, 5.1.4.1).
	minMTU = 68

	// largestMTU is the largest IPv4 packet, and what the device's field of 16 bits holds.
	largestMTU = 1<<16 - 1

	// userMTU is that of QEMU's user network (IF_MTU_DEFAULT of libslirp).
	userMTU = 1500
)

func (UserNetwork) maxMTU() int    { return userMTU }
func (DatagramSocket) maxMTU() int { return largestMTU }

func (n NIC) validate() (errs []error) {
	mac, err := net.ParseMAC(n.MAC)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
		errs = append(errs, fmt.Errorf("the network card's address %q is not a unicast MAC address such as 52:54:00:12:34:56", n.MAC))
	}
	if n.Backend == nil {
		return append(errs, errors.New("the network card has nothing that carries its frames: give it a backend, or leave out the card"))
	}
	if largest := n.Backend.maxMTU(); n.MTU != 0 && (n.MTU < minMTU || n.MTU > largest) {
		errs = append(errs, fmt.Errorf("the network card's MTU %d is not between %d and %d", n.MTU, minMTU, largest))
	}
	return append(errs, n.Backend.validate()...)
}

func (n UserNetwork) validate() (errs []error) {
	for _, domain := range n.Search {
		if domain == "" || len(domain) > 253 || strings.ContainsFunc(domain, func(r rune) bool { return r <= ' ' || r > '~' }) {
			errs = append(errs, fmt.Errorf("%q is no domain that names could be searched in", domain))
		}
	}
	type endpoint struct {
		proto string
		ip    string
		port  int
	}
	seen := make(map[endpoint]bool)
	for _, f := range n.Forwards {
		errs = append(errs, f.validate()...)
		e := endpoint{f.Proto, f.HostIP, f.HostPort}
		if seen[e] {
			errs = append(errs, fmt.Errorf("the port %s %s:%d is forwarded twice", f.Proto, f.HostIP, f.HostPort))
		}
		seen[e] = true
	}
	return errs
}

func (f Forward) validate() (errs []error) {
	if f.Proto != "tcp" && f.Proto != "udp" {
		errs = append(errs, fmt.Errorf("a port forward's protocol is \"tcp\" or \"udp\", not %q", f.Proto))
	}
	if ip, err := netip.ParseAddr(f.HostIP); err != nil || !ip.Is4() {
		errs = append(errs, fmt.Errorf("QEMU forwards ports of IPv4 addresses only, such as 127.0.0.1, and not of %q", f.HostIP))
	}
	for _, port := range []int{f.HostPort, f.GuestPort} {
		if port < 1 || port > 65535 {
			errs = append(errs, fmt.Errorf("the port %d in a port forward is not between 1 and 65535", port))
		}
	}
	return errs
}

func (s DatagramSocket) validate() []error {
	if s.FD == 0 { // which validateFDs takes for none
		return []error{errors.New("the network card's datagram socket is missing")}
	}
	return nil
}
