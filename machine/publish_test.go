package machine

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/network"
)

func TestPortsOfAStoppedSandboxAreInItsConfiguration(t *testing.T) {
	s := create(t, testHost(t), "work")
	web := network.Forward{HostIP: netip.AddrFrom4([4]byte{127, 0, 0, 1}), HostPort: 8080, GuestPort: 80, Proto: network.TCP}
	dns := network.Forward{HostIP: netip.AddrFrom4([4]byte{0, 0, 0, 0}), HostPort: 0, GuestPort: 53, Proto: network.UDP}
	has := func(want ...network.Forward) {
		t.Helper()
		if c, err := s.Config(); err != nil || !slices.Equal(c.Forwards, want) {
			t.Errorf("its ports are %v, %v, want %v", c.Forwards, err, want)
		}
	}
	if opened, err := s.Publish(t.Context(), []network.Forward{web, dns}); err != nil || !slices.Equal(opened, []network.Forward{web, dns}) {
		t.Errorf("got %v, %v", opened, err)
	}
	has(web, dns)
	if _, err := s.Publish(t.Context(), []network.Forward{web}); err == nil || !strings.Contains(err.Error(), "want the same port") {
		t.Errorf("a port is published twice: %v", err)
	}
	if err := s.Unpublish(t.Context(), []network.Forward{web, web}); err == nil || len(api.Remedies(err)) == 0 {
		t.Errorf("a port is closed twice: %v", err)
	}
	has(web, dns)
	if err := s.Unpublish(t.Context(), []network.Forward{web}); err != nil {
		t.Error(err)
	}
	has(dns)
}
