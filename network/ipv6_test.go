package network_test

import (
	"errors"
	"net"
	"os"
	"testing"

	"github.com/sourcery-zone/sandbox/internal/ownthread"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestIPv6NeedsARouteAndAnAddressOfTheInternet(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may make a network namespace: run the test as root")
	}
	for _, tt := range []struct {
		name, address, route string
		want                 bool
	}{
		{"nothing", "", "", false},
		{"an address", "2001:db8::1/64", "", false},
		{"a route", "", "::/0", false},
		{"both", "2001:db8::1/64", "::/0", true},
		{"a route to the Internet alone", "2001:db8::1/64", "2000::/3", true},
		{"a route to somewhere", "2001:db8::1/64", "2001::/16", false},
		{"a unique local address", "fd12::1/64", "::/0", false},
	} {
		got, err := inNamespace(func() error {
			card := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "card0"}, Mode: netlink.TUNTAP_MODE_TAP}
			if err := errors.Join(netlink.LinkAdd(card), netlink.LinkSetUp(card)); err != nil {
				return err
			}
			if tt.address != "" {
				address, err := netlink.ParseAddr(tt.address)
				if err != nil {
					return err
				}
				address.Flags = unix.IFA_F_NODAD // so that it can be used at once
				if err := netlink.AddrAdd(card, address); err != nil {
					return err
				}
			}
			if tt.route == "" {
				return nil
			}
			_, to, err := net.ParseCIDR(tt.route)
			if err != nil {
				return err
			}
			return netlink.RouteAdd(&netlink.Route{LinkIndex: card.Index, Dst: to})
		})
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if got != tt.want {
			t.Errorf("with %s: %t", tt.name, got)
		}
	}
}

// inNamespace asks in a new network namespace, which prepare prepares.
func inNamespace(prepare func() error) (has bool, err error) {
	ownthread.Run(func() {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return
		}
		if err = prepare(); err == nil {
			has = network.HasIPv6()
		}
	})
	return has, err
}
