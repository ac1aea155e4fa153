package smoke

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/network"
)

const (
	// dnsTries and dnsPatience bound one server: datagrams may get lost, and
	// a server without an upstream may take its time to say so.
	dnsTries    = 3
	dnsPatience = 5 * time.Second
)

// checkDNS proves that the guest has a name server that answers. Where the
// host's own do not answer, the guest's cannot.
func checkDNS(ctx context.Context, g *guest) (string, error) {
	text, err := g.output(ctx, "cat", "/etc/resolv.conf")
	if err != nil {
		return "", fmt.Errorf("the guest has no resolver: %w", err)
	}
	inside := network.ParseResolver(text).Servers
	if len(inside) == 0 {
		return "", errors.New("the guest's /etc/resolv.conf names no server")
	}
	outside := network.ParseResolver(g.resolvConf).Servers
	if len(outside) == 0 {
		return "", skip("this machine has no DNS: its /etc/resolv.conf names no server")
	}
	if _, err := askAny(ctx, outside, network.FromHere); err != nil {
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

// askAny returns the first server that answers.
func askAny(ctx context.Context, servers []string, by network.Exchange) (string, error) {
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
func ask(ctx context.Context, server string, by network.Exchange) error {
	ctx, cancel := context.WithTimeoutCause(ctx, dnsPatience, fmt.Errorf("no answer within %v", dnsPatience))
	defer cancel()
	return network.AskDNS(ctx, server, by)
}

// askFromGuest has bash send the datagram: the agent forwards no UDP, and not
// every DNS server listens on TCP.
func (g *guest) askFromGuest(ctx context.Context, server string, query []byte) ([]byte, error) {
	script := fmt.Sprintf(`exec 3<>"/dev/udp/$0/53" && cat >&3 && head -c %d <&3`, network.DNSHeader)
	cmd := g.client.Command(ctx, "bash", "-c", script, server)
	cmd.Stdin = strings.NewReader(string(query))
	return cmd.Output()
}
