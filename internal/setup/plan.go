package main

import (
	"fmt"
	"slices"
	"strings"
)

// Supply is how a release provides for one need.
type Supply struct {
	Packages []string
	Suite    string  // a further suite of the same archive that the packages come from, or empty
	Offers   Version // what these packages bring, where that is known to matter; zero: unknown
	Upgrade  Version // an installed version below this one is replaced, although it would do
	Borrow   *Borrow // instead of Packages
}

// Plan is what there is to do. The zero value means: nothing.
type Plan struct {
	Packages []string
	Suite    string // where not all of Packages come from the system's own sources
	Borrows  []Borrow
	Manual   []string // what cannot be installed for the user; if there is any, nothing is installed
	Notes    []string
}

// Empty tells that there is nothing to do.
func (p Plan) Empty() bool {
	return len(p.Packages) == 0 && len(p.Borrows) == 0 && len(p.Manual) == 0
}

// supplies returns how release provides for each need, and false for a release that we do not know.
func supplies(release Release, arch Arch) (map[NeedID]Supply, bool) {
	qemu := []string{qemuPackage(arch)}
	table := map[NeedID]Supply{
		needQEMU:       {Packages: qemu},
		needVirtiofsd:  {Packages: []string{"virtiofsd"}},
		needMmdebstrap: {Packages: []string{"mmdebstrap"}},
		needUIDMap:     {Packages: []string{"uidmap"}},
		needKeyring:    {Packages: []string{"debian-archive-keyring"}},
		needCompiler:   {Packages: []string{"gcc", "libc6-dev"}},
		needImageTools: {Packages: []string{"qemu-utils"}},
		needSSH:        {Packages: []string{"openssh-client"}},
		needGnuPG:      {Packages: []string{"gnupg"}},
		needTmux:       {Packages: []string{"tmux"}},
		needBus:        {Packages: []string{"dbus-daemon"}},
		needLibvirt:    {Packages: []string{"libvirt-daemon", "libvirt-daemon-driver-qemu"}}, // and not -system, which starts services
		needOtherQEMU:  {Packages: []string{"qemu-system-arm"}},
		needEmulator:   {Packages: []string{"qemu-user"}},
		// The second makes the users and the service by which others than root build.
		needNix: {Packages: []string{"nix-bin", "nix-setup-systemd"}},
	}
	major := release.major()
	switch {
	case release.ID == "debian" && major == 12:
		const backports = "bookworm-backports"
		table[needQEMU] = Supply{Packages: qemu, Suite: backports, Offers: Version{10, 0}, Upgrade: Version{10, 0}}
		table[needMmdebstrap] = Supply{Packages: []string{"mmdebstrap"}, Suite: backports}
		table[needOtherQEMU] = Supply{Packages: []string{"qemu-system-arm"}, Suite: backports}
		table[needEmulator] = Supply{Packages: []string{"qemu-user"}, Suite: backports} // its own is not static
		table[needImageTools] = Supply{Packages: []string{"qemu-utils"}, Suite: backports}
		table[needVirtiofsd] = Supply{Borrow: virtiofsdOf("trixie", "main")}
		table[needNix] = Supply{Borrow: nixOf("trixie", "main")} // its own is 2.8
		table[needOldQEMU] = Supply{Borrow: oldQEMUOf(arch)}
	case release.ID == "debian" && (major >= 13 || release.VersionID == ""): // testing and unstable have no number
	case release.ID == "ubuntu" && release.VersionID == "22.04":
		table[needQEMU] = Supply{Packages: qemu, Offers: Version{6, 2}}
		table[needEmulator] = Supply{Packages: []string{"qemu-user-static"}}
		table[needVirtiofsd] = Supply{} // its only virtiofsd is QEMU's old one in C
		table[needNix] = Supply{Packages: []string{"nix-bin"}, Offers: Version{2, 6}}
	case release.ID == "ubuntu" && release.VersionID == "24.04":
		table[needEmulator] = Supply{Packages: []string{"qemu-user-static"}}
		table[needVirtiofsd] = Supply{Borrow: virtiofsdOf("resolute", "main", "universe")} // its own is 1.10
	case release.ID == "ubuntu" && major >= 25:
	default:
		return nil, false
	}
	return table, true
}

// qemuPackage is Debian's package of the QEMU for guests of the machine's own processor.
func qemuPackage(arch Arch) string {
	if arch.Debian == "arm64" {
		return "qemu-system-arm"
	}
	return "qemu-system-x86"
}

// makePlan decides what to do about needs on a machine where inventory was found.
func makePlan(release Release, arch Arch, needs []Need, inventory Inventory) Plan {
	var plan Plan
	table, known := supplies(release, arch)
	for _, need := range needs {
		found := inventory[need.ID]
		supply := table[need.ID]
		short := need.Shortcoming(found)
		upgrade := short == "" && found.Version.Less(supply.Upgrade)
		switch {
		case short == "" && !upgrade:
			if need.Version != nil && found.Version.Less(need.Wanted) {
				plan.Notes = append(plan.Notes, fmt.Sprintf("%s at %s is version %s: it runs sandboxes, but %s will need %s.", need.Name, found.Path, found.Version, need.Lacking, need.Wanted))
			}
		case !known:
			plan.Manual = append(plan.Manual, describe(release, need, short))
		case len(supply.Packages) == 0 && supply.Borrow == nil:
			plan.Manual = append(plan.Manual, describe(release, need, short)+fmt.Sprintf("; %s has no package of it", release.Name))
		case supply.Offers != Version{} && supply.Offers.Less(need.Minimum):
			plan.Manual = append(plan.Manual, describe(release, need, short)+fmt.Sprintf("; %s has only %s", release.Name, supply.Offers))
		default:
			plan.add(supply, inventory)
		}
	}
	return plan
}

// add takes supply into the plan.
func (p *Plan) add(supply Supply, inventory Inventory) {
	p.Packages = append(p.Packages, supply.Packages...)
	if supply.Suite != "" {
		p.Suite = supply.Suite
	}
	if supply.Borrow != nil {
		p.Borrows = append(p.Borrows, *supply.Borrow)
		if tool := patchelf(); tool.Shortcoming(inventory[tool.ID]) != "" && !slices.Contains(p.Packages, "patchelf") {
			p.Packages = append(p.Packages, "patchelf")
		}
	}
}

// describe says what to install for need by hand: its name and version, its purpose, what is wrong, its programs or file,
// and the packages where the distribution's names are known to us.
func describe(release Release, need Need, short string) string {
	var b strings.Builder
	b.WriteString(need.Name)
	if need.Minimum != (Version{}) {
		fmt.Fprintf(&b, " %s or newer", need.Minimum)
		if need.Minimum.Less(need.Wanted) {
			fmt.Fprintf(&b, ", better %s", need.Wanted)
		}
	}
	fmt.Fprintf(&b, ", %s: %s (", need.Why, short)
	if len(need.Programs) > 0 {
		fmt.Fprintf(&b, "programs: %s", strings.Join(need.Programs, ", "))
	} else {
		fmt.Fprintf(&b, "file: %s", need.Files[0])
	}
	if names := packageElsewhere(release, need.ID); names != "" {
		fmt.Fprintf(&b, "; packages here: %s", names)
	}
	b.WriteString(")")
	return b.String()
}

// packageElsewhere names the packages of distributions on which we install nothing ourselves, or returns "".
func packageElsewhere(release Release, id NeedID) string {
	names := map[string]map[NeedID]string{
		"fedora": {
			needQEMU: "qemu-system-x86-core", needVirtiofsd: "virtiofsd", needMmdebstrap: "mmdebstrap",
			needUIDMap: "shadow-utils", needKeyring: "debian-keyring", needCompiler: "gcc", needImageTools: "qemu-img", needSSH: "openssh-clients", needGnuPG: "gnupg2",
			needTmux: "tmux", needLibvirt: "libvirt-daemon, libvirt-daemon-driver-qemu", needOtherQEMU: "qemu-system-aarch64-core", needEmulator: "qemu-user-static-aarch64",
			needNix: "nix",
		},
		"arch": {
			needQEMU: "qemu-base", needVirtiofsd: "virtiofsd", needUIDMap: "shadow", needKeyring: "debian-archive-keyring",
			needCompiler: "gcc", needImageTools: "qemu-img", needSSH: "openssh", needGnuPG: "gnupg", needTmux: "tmux", needLibvirt: "libvirt", needOtherQEMU: "qemu-system-aarch64", needEmulator: "qemu-user-static",
			needNix: "nix",
		},
		"nixos": {
			needQEMU: "qemu", needVirtiofsd: "virtiofsd", needMmdebstrap: "mmdebstrap", needUIDMap: "shadow",
			needCompiler: "gcc", needImageTools: "qemu-utils", needSSH: "openssh", needGnuPG: "gnupg", needTmux: "tmux", needLibvirt: "libvirt", needNix: "nix",
		},
	}
	for _, family := range slices.Concat([]string{release.ID}, release.Like) {
		if name := names[family][id]; name != "" {
			return name
		}
	}
	return ""
}
