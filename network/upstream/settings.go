// Package upstream connects by way of the proxies through which its user reaches the Internet.
package upstream

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Settings are proxies as people write them down. They may hold passwords, so they are shown by String only.
type Settings struct {
	Web   string `json:"web,omitempty"`   // for port 80
	Other string `json:"other,omitempty"` // for all other ports
	// None are the hosts, domains and networks that are reached without a proxy, with commas between them.
	None string `json:"none,omitempty"`
}

// maxSettings bounds all settings together, in bytes.
const maxSettings = 3 << 10

// FromEnvironment reads the variables that programs have agreed on.
func FromEnvironment(getenv func(string) string) Settings {
	get := func(name string) string { return cmp.Or(getenv(name), getenv(strings.ToLower(name))) }
	all := get("ALL_PROXY")
	return Settings{Web: cmp.Or(get("HTTP_PROXY"), all), Other: cmp.Or(get("HTTPS_PROXY"), all), None: get("NO_PROXY")}
}

// One is a proxy for everything.
func One(text string) Settings { return Settings{Web: text, Other: text} }

// String says which proxies there are, without passwords.
func (s Settings) String() string {
	show := func(text string) string {
		if text == "" {
			return "none"
		}
		u, err := parse(text)
		if err != nil {
			return "one that cannot be used"
		}
		u.User = nil
		return u.String()
	}
	if s.Web == s.Other {
		return show(s.Web)
	}
	return fmt.Sprintf("%s; at port 80 %s", show(s.Other), show(s.Web))
}

// errProxy says how a proxy is written. What is wrong with one is not quoted: there may be a password in it.
var errProxy = errors.New("a proxy is written like http://proxy.example.com:3128, https://proxy.example.com or socks5://127.0.0.1:1080")

// Check finds what is wrong with a proxy that is to be written down, which no password must be.
func Check(text string) error {
	u, err := parse(text)
	if err == nil && u.User != nil {
		return errors.New("a proxy with a password is not written down: leave it to the variable HTTPS_PROXY, which is read at each start")
	}
	return err
}

// ports are those of proxies that name none.
var ports = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}

func parse(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		text = "http://" + text // as is the custom
	}
	u, err := url.Parse(text)
	if err != nil || ports[u.Scheme] == "" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errProxy
	}
	u.Path = ""
	return u, nil
}
