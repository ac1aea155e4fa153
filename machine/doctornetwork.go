package machine

import (
	"fmt"
	"os"
	"strings"

	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/upstream"
)

// examineNetwork tells how guests get to the network here.
func examineNetwork() Finding {
	resolver, err := network.ReadResolver()
	if err != nil {
		return Finding{Name: "network", Verdict: Limited, Finding: err.Error()}
	}
	groups, _ := os.ReadFile(pingGroups) // without it, nobody pings
	return networkFinding(resolver, upstream.FromEnvironment(os.Getenv), mayPing(string(groups), os.Getgid()), network.HasIPv6())
}

// pingGroups has the groups whose processes may ping (icmp(7)).
const pingGroups = "/proc/sys/net/ipv4/ping_group_range"

// mayPing tells whether the process between guest and network may ping. That of root has
// a group that is nobody else's.
func mayPing(groups string, group int) bool {
	var first, last int
	if _, err := fmt.Sscan(groups, &first, &last); err != nil {
		return false
	}
	return first <= last && (group == 0 || first <= group && group <= last)
}

func networkFinding(r network.Resolver, s upstream.Settings, ping, ipv6 bool) Finding {
	f := Finding{Name: "network", Verdict: Good}
	over := "IPv4, as this machine has no way there over IPv6"
	if ipv6 {
		over = "IPv4 and IPv6"
	}
	lines := []string{fmt.Sprintf("guests reach the Internet over %s, without a proxy", over)}
	proxies, err := upstream.New(s)
	switch {
	case err != nil:
		f.Verdict = Limited
		lines = append(lines, fmt.Sprintf("the proxy of the environment is not used: %v", err))
	case proxies != nil:
		lines[0] = fmt.Sprintf("guests reach the Internet over %s, by way of the proxy %s", over, s)
	}
	lines = append(lines, "closed to them, unless another network is chosen, are this machine, the networks around it and all else that is nearer")
	if len(r.Servers) > 0 {
		names := "names are asked of " + strings.Join(r.Servers, ", ")
		if search := r.SearchDomains(); len(search) > 0 {
			names += "; short names are looked for in " + strings.Join(search, ", ")
		}
		lines = append(lines, names)
	}
	if ping {
		lines = append(lines, "ping works")
	} else {
		lines = append(lines, "ping does not work in guests, as this machine does not let its users ping; all else does\nremedy: sysctl net.ipv4.ping_group_range=\"0 2147483647\"")
	}
	f.Finding = strings.Join(lines, "\n")
	return f
}
