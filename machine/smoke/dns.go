package smoke

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// dnsName is asked for. Nobody has it (RFC 6761), so that every answer will do:
// the check is about being answered, which works offline too.
const dnsName = "smoke.invalid."

const (
	// dnsTries and dnsPatience bound one server: datagrams may get lost, and
	// a server without an upstream may take its time to say so.
	dnsTries    = 3
	dnsPatience = 5 * time.Second

	// dnsHeader is all that is read of an answer (RFC 1035, section 4.1.1).
	dnsHeader = 12
)

// exchange sends a datagram to a server and returns the beginning of the answer.
type exchange func(ctx context.Context, server string, query []byte) ([]byte, error)

// checkDNS proves that the guest has a name server that answers. Where the
// host's own do not answer, the guest's cannot.
func checkDNS(ctx context.Context, g *guest) (string, error) {
	text, err := g.output(ctx, "cat", "/etc/resolv.conf")
	if err != nil {
		return "", fmt.Errorf("the guest has no resolver: %w", err)
	}
	inside := nameServers(text)
	if len(inside) == 0 {
		return "", errors.New("the guest's /etc/resolv.conf names no server")
	}
	outside := nameServers(g.resolvConf)
	if len(outside) == 0 {
		return "", skip("this machine has no DNS: its /etc/resolv.conf names no server")
	}
	if _, err := askAny(ctx, outside, askFromHere); err != nil {
		return "", skip(fmt.Sprintf("this machine has no DNS that answers: %v", err))
	}
	if _, err := g.output(ctx, "bash", "-c", ":"); err != nil {
		return "", skip(fmt.Sprintf("the image has no bash to send datagrams with: %v", err))
	}
	server, err := askAny(ctx, inside, g.askFromGuest)
	if err != nil {
		return "", fmt.Errorf("DNS works on this machine and not in the guest: %w", err)
	}
	return server + " answers", nil
}

// nameServers are the servers that resolv.conf(5) names.
func nameServers(resolvConf string) []string {
	var servers []string
	for line := range strings.Lines(resolvConf) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "nameserver" {
			servers = append(servers, fields[1])
		}
	}
	return servers
}

// askAny returns the first server that answers.
func askAny(ctx context.Context, servers []string, by exchange) (string, error) {
	var errs []error
	for _, server := range servers {
		var err error
		for range dnsTries {
			if err = ask(ctx, server, by); err == nil {
				return server, nil
			}
		}
		errs = append(errs, fmt.Errorf("%s: %w", server, err))
	}
	return "", errors.Join(errs...)
}

// ask returns nil if the server answers, whatever it says.
func ask(ctx context.Context, server string, by exchange) error {
	ctx, cancel := context.WithTimeoutCause(ctx, dnsPatience, fmt.Errorf("no answer within %v", dnsPatience))
	defer cancel()
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

func askFromHere(ctx context.Context, server string, query []byte) ([]byte, error) {
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
	answer := make([]byte, dnsHeader)
	n, err := conn.Read(answer)
	return answer[:n], err
}

// askFromGuest has bash send the datagram: the agent forwards no UDP, and not
// every DNS server listens on TCP.
func (g *guest) askFromGuest(ctx context.Context, server string, query []byte) ([]byte, error) {
	script := fmt.Sprintf(`exec 3<>"/dev/udp/$0/53" && cat >&3 && head -c %d <&3`, dnsHeader)
	cmd := g.client.Command(ctx, "bash", "-c", script, server)
	cmd.Stdin = strings.NewReader(string(query))
	return cmd.Output()
}
