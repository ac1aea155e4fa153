package network

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

const (
	// InternalDomain is that of the names that a guest's network has of its own.
	InternalDomain = "sandbox.internal"

	// HostName is the name by which a guest reaches the host's ports that are open to it.
	HostName = "host." + InternalDomain

	// PolicyName is that by which a guest, and nobody else, finds what its network's policy is, by HTTP. It speaks for the
	// network, and for no service of the host's.
	PolicyName = "policy." + InternalDomain

	// MaxHostPorts is how many of the host's ports a guest may have.
	MaxHostPorts = 64
)

// hostPortExample stands in the message of every mistake in a host port's specification.
const hostPortExample = "write PORT or PORT:NAME, for example 5432, 11434:ollama or 8080:host.docker.internal"

// HostPort is a TCP port of the host's loopback that is open to a guest.
type HostPort struct {
	Port int `json:"port"`
	// Name is one by which the guest finds the host, besides HostName; it may be empty. It is whole, and in small letters.
	Name string `json:"name,omitempty"`
}

// String returns the specification that ParseHostPort reads back.
func (p HostPort) String() string {
	if p.Name == "" {
		return fmt.Sprint(p.Port)
	}
	return fmt.Sprintf("%d:%s", p.Port, p.Name)
}

// Address returns where the guest finds it: a name of the host's, with the port.
func (p HostPort) Address() string {
	return net.JoinHostPort(cmp.Or(p.Name, HostName), strconv.Itoa(p.Port))
}

// ParseHostPort reads PORT[:NAME]. A name without a dot is one below sandbox.internal. Others are below internal, a
// domain that is nobody's on the Internet, so that no name of somebody else's is taken.
func ParseHostPort(spec string) (HostPort, error) {
	number, name, named := strings.Cut(spec, ":")
	port, err := parsePort(part{number, 1}, 1)
	p := HostPort{Port: port}
	if err == nil && named {
		p.Name, err = parseHostName(part{name, len([]rune(number)) + 2})
	}
	if err != nil {
		return HostPort{}, fmt.Errorf("the host's port %q cannot be opened: %w; %s", spec, err, hostPortExample)
	}
	return p, nil
}

func parseHostName(p part) (string, error) {
	name := p.text
	for i, c := range []byte(name) {
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '.' || c == '-') {
			return "", part{name, p.position + i}.errorf("a name has small letters, digits, hyphens and dots only")
		}
	}
	if !strings.Contains(name, ".") {
		name += "." + InternalDomain
	}
	const maxName, maxLabel = 253, 63
	labels := strings.Split(name, ".")
	bad := func(label string) bool {
		return label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-'
	}
	switch {
	case len(name) > maxName || slices.ContainsFunc(labels, bad):
		return "", p.errorf("%q is not a name", p.text)
	case labels[len(labels)-1] != "internal":
		return "", p.errorf("%q is not below internal, and so may be somebody else's name", p.text)
	case name == PolicyName:
		return "", p.errorf("%s is where the network tells what it opens", name)
	}
	return name, nil
}
