package network

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// The protocols of a Forward.
const (
	TCP = "tcp"
	UDP = "udp"
)

// forwardExample stands in the message of every mistake in a forward's specification.
const forwardExample = "write [IP:]HOST:GUEST[/udp], for example 8080:80 or 127.0.0.1:5353:53/udp"

// loopback is where the host's ports are opened unless another address is written out.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// Forward leads what arrives at a port of the host to a port of the guest.
type Forward struct {
	// HostIP is the host's address to listen on. The addresses 0.0.0.0 and :: stand for all.
	HostIP netip.Addr `json:"hostIP"`
	// HostPort is the host's port; 0 stands for any that is free, see Resolve.
	HostPort int `json:"hostPort"`
	// GuestPort is the guest's port.
	GuestPort int `json:"guestPort"`
	// Proto is TCP or UDP.
	Proto string `json:"proto"`
}

// String returns the specification that ParseForward reads back.
func (f Forward) String() string {
	spec := f.address() + ":" + strconv.Itoa(f.GuestPort)
	if f.Proto == UDP {
		spec += "/" + UDP
	}
	return spec
}

// address is what to listen on, in the form of package net.
func (f Forward) address() string {
	return netip.AddrPortFrom(f.HostIP, uint16(f.HostPort)).String()
}

// ParseForward reads [IP:]HOST:GUEST[/tcp|/udp]. The address is 127.0.0.1 unless given; one of IPv6 stands in
// brackets. The host's port 0 stands for any that is free.
func ParseForward(spec string) (Forward, error) {
	f, err := parseForward(spec)
	if err != nil {
		return Forward{}, fmt.Errorf("the port forward %q is not valid: %w; %s", spec, err, forwardExample)
	}
	return f, nil
}

// part is a piece of a specification.
type part struct {
	text     string
	position int // of its first character, counted from 1
}

func (p part) errorf(format string, args ...any) error {
	return fmt.Errorf("at character %d, "+format, append([]any{p.position}, args...)...)
}

func parseForward(spec string) (Forward, error) {
	f := Forward{HostIP: loopback, Proto: TCP}
	ports, proto, found := strings.Cut(spec, "/")
	if found {
		if proto != TCP && proto != UDP {
			return f, part{proto, len([]rune(ports)) + 2}.errorf("%q is neither tcp nor udp", proto)
		}
		f.Proto = proto
	}
	parts, err := split(ports)
	if err != nil {
		return f, err
	}
	if len(parts) == 3 {
		if f.HostIP, err = parseAddress(parts[0]); err != nil {
			return f, err
		}
		parts = parts[1:]
	}
	if f.HostPort, err = parsePort(parts[0], 0); err != nil {
		return f, err
	}
	f.GuestPort, err = parsePort(parts[1], 1)
	return f, err
}

// split returns the two or three parts between colons.
func split(s string) ([]part, error) {
	var parts []part
	position := 1
	if strings.HasPrefix(s, "[") {
		address, rest, ok := strings.Cut(s[1:], "]")
		if !ok {
			return nil, part{s, 1}.errorf("the bracket around the address is not closed")
		}
		position = len([]rune(address)) + 3
		if !strings.HasPrefix(rest, ":") {
			return nil, part{rest, position}.errorf("a colon and the host's port must follow the address")
		}
		parts = append(parts, part{address, 2})
		s, position = rest[1:], position+1
	}
	for text := range strings.SplitSeq(s, ":") {
		parts = append(parts, part{text, position})
		position += len([]rune(text)) + 1
	}
	switch last := parts[len(parts)-1]; {
	case len(parts) > 3:
		return nil, parts[3].errorf("there is one part too many (an address of IPv6 stands in brackets, as in [::1]:8080:80)")
	case len(parts) == 1, len(parts) == 2 && strings.ContainsAny(parts[0].text, ".:"):
		last.position += len([]rune(last.text))
		return nil, last.errorf("a colon and the guest's port must follow")
	}
	return parts, nil
}

func parseAddress(p part) (netip.Addr, error) {
	if p.text == "" {
		return netip.Addr{}, p.errorf("the address is empty (to listen on all, write 0.0.0.0)")
	}
	ip, err := netip.ParseAddr(p.text)
	if err != nil {
		return netip.Addr{}, p.errorf("%q is not an IP address, such as 127.0.0.1", p.text)
	}
	return ip.Unmap(), nil
}

func parsePort(p part, least int) (int, error) {
	port, err := strconv.ParseUint(p.text, 10, 16)
	if err != nil || int(port) < least {
		return 0, p.errorf("%q is not a port from %d to 65535", p.text, least)
	}
	return int(port), nil
}

// CheckConflicts finds forwards that want the same port of the host. It does not look at the host.
func CheckConflicts(forwards []Forward) error {
	var errs []error
	for i, f := range forwards {
		for _, earlier := range forwards[:i] {
			if f.conflicts(earlier) {
				errs = append(errs, fmt.Errorf("the port forwards %s and %s want the same port of the host: give one of them another", earlier, f))
				break
			}
		}
	}
	return errors.Join(errs...)
}

func (f Forward) conflicts(other Forward) bool {
	return f.HostPort == other.HostPort && f.HostPort != 0 &&
		cmp.Or(f.Proto, TCP) == cmp.Or(other.Proto, TCP) && overlap(f.HostIP, other.HostIP)
}

// overlap tells whether sockets at one port of both addresses get in each other's way.
func overlap(a, b netip.Addr) bool {
	all := func(all, one netip.Addr) bool {
		return all == netip.IPv6Unspecified() || all == netip.IPv4Unspecified() && one.Is4()
	}
	return a == b || all(a, b) || all(b, a)
}
