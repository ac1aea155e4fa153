package policy

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// ParseDestination reads what a person names as a place in the network: a URL, or HOST[:PORT][/udp], at port 443 unless
// another is given or the URL's scheme has one.
func ParseDestination(text string) (host string, port uint16, proto Proto, err error) {
	bad := fmt.Errorf("%q is no destination: write a URL, or HOST:PORT such as example.com:22 or 10.0.0.1:53/udp", text)
	if u, err := url.Parse(text); err == nil && u.Host != "" {
		ports := map[string]string{"http": "80", "ws": "80", "ssh": "22", "git": "9418"}
		text = net.JoinHostPort(u.Hostname(), u.Port())
		if u.Port() == "" {
			text = net.JoinHostPort(u.Hostname(), ports[u.Scheme])
		}
	}
	proto = TCP
	if rest, ok := strings.CutSuffix(text, "/udp"); ok {
		text, proto = rest, UDP
	}
	host, number := text, ""
	if _, err := netip.ParseAddr(text); err != nil && strings.Contains(text, ":") {
		if host, number, err = net.SplitHostPort(text); err != nil {
			return "", 0, "", bad
		}
	}
	if number == "" {
		number = "443"
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 || host == "" || strings.ContainsAny(host, "/ @") {
		return "", 0, "", bad
	}
	return host, uint16(n), proto, nil
}
