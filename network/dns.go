package network

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// ResolverFile is where a host's DNS servers stand, and where QEMU's user
// networking finds them.
const ResolverFile = "/etc/resolv.conf"

// Resolver is what resolv.conf(5) says.
type Resolver struct {
	Servers []string // addresses, as they are written
	Search  []string // domains that are appended to short names
}

// ReadResolver reads the host's resolver; without its file, there is nothing in it.
func ReadResolver() (Resolver, error) {
	text, err := os.ReadFile(ResolverFile)
	if errors.Is(err, os.ErrNotExist) {
		return Resolver{}, nil
	}
	return ParseResolver(string(text)), err
}

// ParseResolver reads resolv.conf(5).
func ParseResolver(text string) (r Resolver) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			r.Servers = append(r.Servers, fields[1])
		case "domain", "search": // the last of them counts
			r.Search = fields[1:]
		}
	}
	return r
}

// maxSearch bounds the domains that a guest is told, in bytes: the DHCP answer of
// QEMU leaves all of them out when they do not fit into it.
const maxSearch = 180

// SearchDomains are the domains to tell a guest: those that are names of hosts, in
// their order, as far as there is room.
func (r Resolver) SearchDomains() []string {
	var domains []string
	room := maxSearch
	for _, d := range r.Search {
		d = strings.TrimSuffix(d, ".")
		if room -= len(d) + 2; !isDomain(d) || room < 0 { // a length and an end
			continue
		}
		domains = append(domains, d)
	}
	return domains
}

func isDomain(d string) bool {
	for label := range strings.SplitSeq(d, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			return false
		}
	}
	return len(d) < 254
}

// Exchange sends a datagram to a DNS server and returns the beginning of the
// answer, of DNSHeader bytes at least.
type Exchange func(ctx context.Context, server string, query []byte) ([]byte, error)

// DNSHeader is as much of an answer as AskDNS looks at (RFC 1035, section 4.1.1).
const DNSHeader = 12

// dnsName is asked for. Nobody has it (RFC 6761), so that every answer will do:
// the question is whether there is one, which works offline too.
const dnsName = "sandbox.invalid."

// AskDNS returns nil if the server answers, whatever it says.
func AskDNS(ctx context.Context, server string, by Exchange) error {
	id := uint16(rand.Uint32())
	query, err := dnsQuery(id)
	if err != nil {
		return err
	}
	answer, err := by(ctx, server, query)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	var p dnsmessage.Parser
	header, err := p.Start(answer)
	if err != nil {
		return fmt.Errorf("its answer is no DNS message: %w", err)
	}
	if header.ID != id || !header.Response {
		return errors.New("what came back is no answer to the question")
	}
	return nil
}

func dnsQuery(id uint16) ([]byte, error) {
	name, err := dnsmessage.NewName(dnsName)
	if err != nil {
		return nil, err
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	return m.Pack()
}

// FromHere is the Exchange of this machine.
func FromHere(ctx context.Context, server string, query []byte) ([]byte, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", net.JoinHostPort(server, "53"))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	answer := make([]byte, DNSHeader)
	n, err := conn.Read(answer)
	if failed, ok := errors.AsType[*net.OpError](err); ok {
		err = failed.Err // its addresses are known
	}
	return answer[:n], err
}

// ChooseDNS returns the first server that answers and that a network of that mode asks.
// QEMU's user networking passes a guest's questions on to the first one that it reads,
// whether it answers or not, and to none of IPv6; ours waits in vain before it asks the
// next one: see PutFirst. The error is why names cannot be resolved in the guest, with
// what to do. ChooseDNS takes as long as the server that it returns does to answer, and
// at most patience.
func (r Resolver) ChooseDNS(ctx context.Context, mode Mode, patience time.Duration, by Exchange) (server string, err error) {
	const effect = "so names cannot be resolved in the guest"
	servers := r.Servers
	if mode == ModeUser {
		servers = r.ipv4()
	}
	switch {
	case len(r.Servers) == 0:
		return "", fmt.Errorf("this machine has no DNS server, %s: write one into %s", effect, ResolverFile)
	case len(servers) == 0:
		return "", fmt.Errorf("this machine's DNS servers (%s) are of IPv6 only, which QEMU's network does not reach, %s: write one of IPv4 into %s", strings.Join(r.Servers, ", "), effect, ResolverFile)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer within %v", patience))
	defer cancel()
	answers := make([]chan error, len(servers))
	for i, server := range servers {
		answers[i] = make(chan error, 1)
		go func() { answers[i] <- askTwice(ctx, patience, server, by) }()
	}
	var silent []string
	for i, server := range servers {
		err := <-answers[i]
		if err == nil {
			return server, nil
		}
		silent = append(silent, fmt.Sprintf("%s: %v", server, err))
	}
	return "", fmt.Errorf("no DNS server of this machine answers (%s), %s: write one that does into %s", strings.Join(silent, "; "), effect, ResolverFile)
}

// PutFirst returns the text of a resolv.conf(5) with a server before all others; it
// is the text itself if the server is the first already.
func PutFirst(text, server string) string {
	if servers := ParseResolver(text).Servers; len(servers) > 0 && servers[0] == server {
		return text
	}
	return "nameserver " + server + "\n" + text
}

// ipv4 are the servers of IPv4.
func (r Resolver) ipv4() (servers []string) {
	for _, text := range r.Servers {
		if server, err := netip.ParseAddr(text); err == nil && server.Is4() {
			servers = append(servers, text)
		}
	}
	return servers
}

// askTwice asks again after a while: a datagram may be lost.
func askTwice(ctx context.Context, patience time.Duration, server string, by Exchange) error {
	first, cancel := context.WithTimeout(ctx, patience/2)
	defer cancel()
	if err := AskDNS(first, server, by); err == nil || first.Err() == nil {
		return err
	}
	return AskDNS(ctx, server, by)
}
