package main

import (
	"reflect"
	"strings"
	"testing"
)

// The os-release files of the distributions that the tables know or meet, shortened to what we read.
const (
	debian12   = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\nID=debian\n"
	debian13   = "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nVERSION_ID=\"13\"\nVERSION_CODENAME=trixie\nID=debian\n"
	debianSid  = "PRETTY_NAME=\"Debian GNU/Linux forky/sid\"\nVERSION_CODENAME=forky\nID=debian\n"
	debian11   = "PRETTY_NAME=\"Debian GNU/Linux 11 (bullseye)\"\nVERSION_ID=\"11\"\nVERSION_CODENAME=bullseye\nID=debian\n"
	ubuntu2204 = "PRETTY_NAME=\"Ubuntu 22.04.5 LTS\"\nVERSION_ID=\"22.04\"\nVERSION_CODENAME=jammy\nID=ubuntu\nID_LIKE=debian\n"
	ubuntu2404 = "PRETTY_NAME=\"Ubuntu 24.04.3 LTS\"\nVERSION_ID=\"24.04\"\nVERSION_CODENAME=noble\nID=ubuntu\nID_LIKE=debian\n"
	ubuntu2604 = "PRETTY_NAME=\"Ubuntu 26.04 LTS\"\nVERSION_ID=\"26.04\"\nVERSION_CODENAME=resolute\nID=ubuntu\nID_LIKE=debian\n"
	fedora     = "NAME=\"Fedora Linux\"\nID=fedora\nVERSION_ID=43\nVERSION_CODENAME=\"\"\nPRETTY_NAME=\"Fedora Linux 43 (Cloud Edition)\"\n"
	arch       = "NAME=\"Arch Linux\"\nPRETTY_NAME=\"Arch Linux\"\nID=arch\nBUILD_ID=rolling\n"
	nixOS      = "ID=nixos\nVERSION_ID=\"26.05\"\nVERSION_CODENAME=yarara\nPRETTY_NAME=\"NixOS 26.05 (Yarara)\"\n"
	rocky      = "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.6\"\nPRETTY_NAME=\"Rocky Linux 9.6 (Blue Onyx)\"\n"
)

func mustRelease(t *testing.T, text string) Release {
	t.Helper()
	release, err := ParseRelease(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return release
}

func TestParseRelease(t *testing.T) {
	tests := map[string]struct {
		text string
		want Release
	}{
		"Debian":          {debian12, Release{ID: "debian", VersionID: "12", Codename: "bookworm", Name: "Debian GNU/Linux 12 (bookworm)"}},
		"derived":         {rocky, Release{ID: "rocky", Like: []string{"rhel", "centos", "fedora"}, VersionID: "9.6", Name: "Rocky Linux 9.6 (Blue Onyx)"}},
		"no pretty name":  {"ID=void\nVERSION_ID=3\n", Release{ID: "void", VersionID: "3", Name: "void 3"}},
		"empty":           {"", Release{ID: "linux", Name: "linux"}},
		"quotes, garbage": {"# ID=comment\nID='x'\n\nnonsense\nPRETTY_NAME=\"a \\\"b\\\" \\$c\"\n", Release{ID: "x", Name: `a "b" $c`}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := mustRelease(t, test.text); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}
