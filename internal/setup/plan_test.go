package main

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

var amd64 = Arch{"amd64", "x86_64", "x86_64-linux-gnu", "ld-linux-x86-64.so.2"}

// complete is the inventory of a machine on which nothing is missing.
func complete() Inventory {
	return Inventory{
		needQEMU:       {Path: "/usr/bin/qemu-system-x86_64", Version: Version{10, 0}},
		needVirtiofsd:  {Path: "/usr/libexec/virtiofsd", Version: Version{1, 13}},
		needMmdebstrap: {Path: "/usr/bin/mmdebstrap"},
		needUIDMap:     {Path: "/usr/bin/newuidmap"},
		needKeyring:    {Path: "/usr/share/keyrings/debian-archive-keyring.gpg"},
		needCompiler:   {Path: "/usr/bin/gcc"},
		needSSH:        {Path: "/usr/bin/ssh"},
		needGnuPG:      {Path: "/usr/bin/gpg"},
		needTmux:       {Path: "/usr/bin/tmux"},
		needBus:        {Path: "/usr/bin/dbus-daemon"},
		needLibvirt:    {Path: "/usr/sbin/libvirtd"},
		needOtherQEMU:  {Path: "/usr/bin/qemu-system-aarch64"},
		needOldQEMU:    {Path: "/usr/local/lib/sandbox/qemu-7.2/usr/bin/qemu-system-x86_64"},
		needEmulator:   {Path: "/usr/bin/qemu-aarch64"},
		needImageTools: {Path: "/usr/bin/qemu-img"},
		needNix:        {Path: "/usr/bin/nix", Version: Version{2, 26}},
	}
}

func TestPlanInstallsWhatIsMissing(t *testing.T) {
	bare := Inventory{needKeyring: complete()[needKeyring]} // as Debian itself comes
	with := func(id NeedID, found Found) Inventory {
		inventory := complete()
		inventory[id] = found
		return inventory
	}
	tests := map[string]struct {
		release   string
		set       string
		inventory Inventory
		want      Plan
	}{
		"Debian 12, bare": {debian12, "run", bare, Plan{
			Packages: []string{"qemu-system-x86", "patchelf", "mmdebstrap", "uidmap"},
			Suite:    "bookworm-backports", Borrows: []Borrow{*virtiofsdOf("trixie", "main")},
		}},
		"Debian 12, only test tools missing": {debian12, "test", with(needTmux, Found{}), Plan{Packages: []string{"tmux"}}},
		"Debian 12, its own QEMU 7.2 is replaced": {
			debian12, "run",
			with(needQEMU, Found{Path: "/usr/bin/qemu-system-x86_64", Version: Version{7, 2}}),
			Plan{Packages: []string{"qemu-system-x86"}, Suite: "bookworm-backports"},
		},
		"Debian 12, virtiofsd missing, patchelf present": {
			debian12, "run",
			Inventory{
				needQEMU: complete()[needQEMU], needMmdebstrap: complete()[needMmdebstrap], needUIDMap: complete()[needUIDMap],
				needKeyring: complete()[needKeyring], needPatchelf: {Path: "/usr/bin/patchelf"},
			},
			Plan{Borrows: []Borrow{*virtiofsdOf("trixie", "main")}},
		},
		"Debian 12, its own Nix 2.8 does not count": {
			debian12, "test", with(needNix, Found{Path: "/usr/bin/nix", Version: Version{2, 8}}),
			Plan{Packages: []string{"patchelf"}, Borrows: []Borrow{*nixOf("trixie", "main")}},
		},
		"Debian 12, its own QEMU is borrowed for the tests": {
			debian12, "test", with(needOldQEMU, Found{}),
			Plan{Packages: []string{"patchelf"}, Borrows: []Borrow{*oldQEMUOf(amd64)}},
		},
		"Debian 13 has no such QEMU": {debian13, "test", with(needOldQEMU, Found{}), Plan{}},
		"Debian 12 runs without it":  {debian12, "run", with(needOldQEMU, Found{}), Plan{}},
		"Debian 13, bare": {debian13, "test", bare, Plan{
			Packages: []string{"qemu-system-x86", "virtiofsd", "mmdebstrap", "uidmap", "qemu-system-arm", "qemu-user", "gcc", "libc6-dev", "qemu-utils", "openssh-client", "gnupg", "tmux", "dbus-daemon", "nix-bin", "nix-setup-systemd", "libvirt-daemon", "libvirt-daemon-driver-qemu"},
		}},
		"Debian unstable, bare": {debianSid, "run", bare, Plan{
			Packages: []string{"qemu-system-x86", "virtiofsd", "mmdebstrap", "uidmap"},
		}},
		"Ubuntu 24.04, bare": {ubuntu2404, "run", Inventory{}, Plan{
			Packages: []string{"qemu-system-x86", "patchelf", "mmdebstrap", "uidmap", "debian-archive-keyring"},
			Borrows:  []Borrow{*virtiofsdOf("resolute", "main", "universe")},
		}},
		"Ubuntu 26.04, bare": {ubuntu2604, "run", Inventory{}, Plan{
			Packages: []string{"qemu-system-x86", "virtiofsd", "mmdebstrap", "uidmap", "debian-archive-keyring"},
		}},
		"Debian 12, complete":    {debian12, "test", complete(), Plan{}},
		"Ubuntu 22.04, complete": {ubuntu2204, "test", complete(), Plan{}},
		"Fedora, complete":       {fedora, "test", complete(), Plan{}},
		"NixOS, complete":        {nixOS, "test", complete(), Plan{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			release := mustRelease(t, test.release)
			got := makePlan(release, amd64, needsOf(test.set, release, amd64), test.inventory)
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

func TestPlanSaysWhatToInstallByHand(t *testing.T) {
	withQEMU := func(version Version) Inventory {
		inventory := complete()
		inventory[needQEMU] = Found{Path: "/usr/bin/qemu-system-x86_64", Version: version}
		return inventory
	}
	tests := map[string]struct {
		release   string
		inventory Inventory
		want      []string // one for each item, contained in it
	}{
		"Fedora": {fedora, Inventory{}, []string{
			"packages here: qemu-system-x86-core", "virtiofsd", "packages here: mmdebstrap", "shadow-utils", "debian-keyring",
		}},
		"derived from Fedora":            {rocky, withQEMU(Version{6, 0}), []string{"is version 6.0, and sandbox needs 7.2"}},
		"Arch":                           {arch, withQEMU(Version{}), []string{"names no version that we know"}},
		"NixOS":                          {nixOS, Inventory{}, []string{"qemu-system-x86_64", "1.13 or newer", "mmdebstrap", "newuidmap", "archive keys"}},
		"Debian 11 is too old":           {debian11, withQEMU(Version{5, 2}), []string{"is version 5.2"}},
		"Ubuntu 22.04 has an old QEMU":   {ubuntu2204, Inventory{}, []string{"Ubuntu 22.04.5 LTS has only 6.2", "Ubuntu 22.04.5 LTS has no package of it"}},
		"its own QEMU does not help it":  {ubuntu2204, withQEMU(Version{6, 2}), []string{"has only 6.2"}},
		"a newer QEMU made by hand does": {ubuntu2204, withQEMU(Version{9, 0}), nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := makePlan(mustRelease(t, test.release), amd64, runNeeds(amd64), test.inventory)
			if len(got.Manual) != len(test.want) {
				t.Fatalf("got %d items, want %d:\n%s", len(got.Manual), len(test.want), strings.Join(got.Manual, "\n"))
			}
			for i, want := range test.want {
				if !strings.Contains(got.Manual[i], want) {
					t.Errorf("item %d is %q, and should contain %q", i, got.Manual[i], want)
				}
			}
		})
	}
}

func TestPlanNotesWhatAnOldButUsableQEMULacks(t *testing.T) {
	inventory := complete()
	inventory[needQEMU] = Found{Path: "/usr/bin/qemu-system-x86_64", Version: Version{8, 2}}
	got := makePlan(mustRelease(t, ubuntu2404), amd64, runNeeds(amd64), inventory)
	if !got.Empty() {
		t.Errorf("QEMU 8.2 runs sandboxes, but the plan is %+v", got)
	}
	if len(got.Notes) != 1 || !strings.Contains(got.Notes[0], "8.2") || !strings.Contains(got.Notes[0], "10.0") {
		t.Errorf("the notes are %q, and should name both versions", got.Notes)
	}
}

func TestVersionsThatProgramsSay(t *testing.T) {
	needs := needsOf("test", mustRelease(t, debian12), amd64)
	nix := needs[slices.IndexFunc(needs, func(n Need) bool { return n.ID == needNix })]
	qemu := needs[slices.IndexFunc(needs, func(n Need) bool { return n.ID == needQEMU })]
	virtiofsd := needs[slices.IndexFunc(needs, func(n Need) bool { return n.ID == needVirtiofsd })]
	tests := []struct {
		need Need
		text string
		want Version
	}{
		{nix, "nix (Nix) 2.26.3\n", Version{2, 26}},
		{nix, "nix (Lix, like Nix) 2.93.0\n", Version{2, 93}},
		{qemu, "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)\nCopyright", Version{10, 0}},
		{qemu, "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)", Version{7, 2}},
		{virtiofsd, "virtiofsd 1.13.2\n", Version{1, 13}},
		{virtiofsd, "virtiofsd backend 1.4.0\n", Version{1, 4}},
		{virtiofsd, "virtiofsd version 7.2.22 (Debian 1:7.2+dfsg-7)\nusing FUSE kernel interface version 7.36\n", Version{}},
	}
	for _, test := range tests {
		if got, _ := findVersion(test.need.Version, test.text); got != test.want {
			t.Errorf("%q: got %s, want %s", test.text, got, test.want)
		}
	}
}
