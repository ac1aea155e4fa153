package main

import (
	"reflect"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/image"
)

func TestParseRegistration(t *testing.T) {
	const text = `/nix/store/0a-glibc-2.42-61
sha256:00
30000000

2
/nix/store/0a-glibc-2.42-61
/nix/store/0b-libidn2-2.3.8
/nix/store/0b-libidn2-2.3.8
sha256:00
400000
/nix/store/0x-libidn2-2.3.8.drv
0
/nix/store/0c-libidn2-2.3.8-bin
sha256:00
50

0
/nix/store/0d-etc
sha256:00
7

0
/nix/store/0e-unit-nix-daemon.service
sha256:00
5

1
/nix/store/0d-etc
`
	got, err := parseRegistration(strings.NewReader(text))
	want := []image.Package{
		{Name: "configuration", Size: 12},
		{Name: "glibc", Version: "2.42-61", Size: 30000000},
		{Name: "libidn2", Version: "2.3.8", Size: 400050},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	for name, text := range map[string]string{
		"within the entry":      "/nix/store/0a-glibc-2.42\nsha256:00\n",
		"within the references": "/nix/store/0a-glibc-2.42\nsha256:00\n5\n\n2\n/nix/store/0a-glibc-2.42\n",
		"no number":             "/nix/store/0a-glibc-2.42\nsha256:00\nfive\n\n0\n",
	} {
		if _, err := parseRegistration(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSplitName(t *testing.T) {
	for base, want := range map[string][2]string{
		"0a-gcc-15.2.0-lib":                       {"gcc", "15.2.0"},
		"0a-python3.13-requests-2.32.5":           {"python3.13-requests", "2.32.5"},
		"0a-linux-6.18.2-modules":                 {"linux", "6.18.2"},
		"0a-nixos-system-agent-vm-26.11.20260714": {"nixos-system-agent-vm", "26.11.20260714"},
		"0a-perl5.42.0-DBI-1.647":                 {"perl5.42.0-DBI", "1.647"},
		"0a-system-path":                          {"configuration", ""},
		"0a-x":                                    {"configuration", ""},
	} {
		name, version := splitName(base)
		if name != want[0] || version != want[1] {
			t.Errorf("%s is %q %q, want %q", base, name, version, want)
		}
	}
}
