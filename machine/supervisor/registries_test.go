package supervisor

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/network/policy"
)

func TestRegistriesAreTheHostsOfURLs(t *testing.T) {
	for text, want := range map[string][]string{
		"https://registry.npmjs.org/\n": {"registry.npmjs.org"},
		"http://deb.debian.org/debian\nhttp://deb.debian.org/debian\nhttp://mirror.example:3142/debian-security\n":       {"deb.debian.org", "mirror.example:3142"},
		"https://proxy.golang.org,direct\nhttps://sum.golang.org\n":                                                      {"proxy.golang.org", "sum.golang.org"},
		"https://off\noff|direct\nhttps://\n":                                                                            {"off"},
		"global.index-url='https://user:secret@pypi.example/simple'\n:env:.extra-index-url=\"http://10.1.2.3:8081/x\"\n": {"pypi.example", "10.1.2.3:8081"},
		"https://cache.nixos.org/ https://a.cachix.org":                                                                  {"cache.nixos.org", "a.cachix.org"},
		"file:///srv/debian cdrom:[x]/ undefined \x1b[2J https://*.evil.example/ https://a\x1b.example/ https://[::1]/":  {},
		"": {},
	} {
		if got := registryRules(text); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	var many strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&many, "https://h%d.example/\n", i)
	}
	if got := registryRules(many.String()); len(got) != maxRegistries {
		t.Errorf("there are %d", len(got))
	}
}

func TestEachPresetThatIsReadHasACommand(t *testing.T) {
	for _, p := range policy.Presets() {
		if _, ok := registryCommands[p.Name]; ok != p.Read {
			t.Errorf("%s is read: %v, and has a command: %v", p.Name, p.Read, ok)
		}
	}
}
