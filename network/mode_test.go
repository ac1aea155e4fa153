package network

import (
	"strings"
	"testing"
)

func TestParseMode(t *testing.T) {
	for _, want := range []Mode{ModePublic, ModeAllowlist, ModeAsk, ModeUser, ModeNone} {
		if got, err := ParseMode(string(want)); err != nil || got != want {
			t.Errorf("ParseMode(%q) = %q, %v", want, got, err)
		}
	}
	for _, name := range []string{"", "User", "bridge"} {
		if _, err := ParseMode(name); err == nil || !strings.Contains(err.Error(), "use public, allowlist, ask, user or none") {
			t.Errorf("ParseMode(%q): %v", name, err)
		}
	}
}

func TestModesAreOrderedByWhatTheyOpen(t *testing.T) {
	order := []Mode{ModeNone, ModeAllowlist, ModeAsk, ModePublic, ModeUser}
	if len(order) != len(Modes()) {
		t.Errorf("there are %d modes, and %d have a place", len(Modes()), len(order))
	}
	for i, m := range order {
		for j, other := range order {
			if got := m.Compare(other); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%s compared with %s is %d", m, other, got)
			}
		}
	}
}

func TestMACIsStableLocalAndDiffers(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{"", "a", "b", "project", "project-2", strings.Repeat("x", 63)} {
		hardware := MAC(name)
		mac := hardware.String()
		if mac != MAC(name).String() {
			t.Errorf("%q has two addresses", name)
		}
		if len(hardware) != 6 || !strings.HasPrefix(mac, "52:54:00:") {
			t.Errorf("%q: %s", name, mac)
			continue
		}
		const multicast, local = 1, 2
		if hardware[0]&multicast != 0 || hardware[0]&local == 0 {
			t.Errorf("%q: %s is not a locally administered address of one device", name, mac)
		}
		if other, ok := seen[mac]; ok {
			t.Errorf("%q and %q have the same address", name, other)
		}
		seen[mac] = name
	}
}
