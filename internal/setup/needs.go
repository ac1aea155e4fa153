package main

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
)

// NeedID names a need in the tables of the releases.
type NeedID string

const (
	needQEMU       NeedID = "qemu"
	needVirtiofsd  NeedID = "virtiofsd"
	needMmdebstrap NeedID = "mmdebstrap"
	needUIDMap     NeedID = "uidmap"
	needKeyring    NeedID = "keyring"
	needCompiler   NeedID = "compiler"
	needSSH        NeedID = "ssh"
	needGnuPG      NeedID = "gnupg"
	needTmux       NeedID = "tmux"
	needBus        NeedID = "bus"
	needLibvirt    NeedID = "libvirt"
	needPatchelf   NeedID = "patchelf"
	needOtherQEMU  NeedID = "other-qemu"
	needOldQEMU    NeedID = "old-qemu"
	needEmulator   NeedID = "emulator"
	needNix        NeedID = "nix"
	needImageTools NeedID = "image-tools"
)

// Need is something that must be on the machine: programs, or a file.
type Need struct {
	ID   NeedID
	Name string // as in "QEMU is missing"
	Why  string // what it is for, as in "to build the default image"

	Programs []string // all of them; the first is asked for its version
	Dirs     []string // searched after $PATH
	Files    []string // any one of them

	Version *regexp.Regexp // finds major and minor in the output of --version; nil: no version is asked for
	Minimum Version        // below it, sandbox does not work
	Wanted  Version        // below it, something that is named in Lacking does not work
	Lacking string
}

// Arch is a processor architecture in the words of each program concerned.
type Arch struct {
	Debian    string // dpkg: "amd64"
	QEMU      string // qemu-system-…: "x86_64"
	Multiarch string // library directory: "x86_64-linux-gnu"
	Loader    string // glibc's dynamic loader
}

// archOf translates GOARCH.
func archOf(goarch string) (Arch, error) {
	switch goarch {
	case "amd64":
		return Arch{"amd64", "x86_64", "x86_64-linux-gnu", "ld-linux-x86-64.so.2"}, nil
	case "arm64":
		return Arch{"arm64", "aarch64", "aarch64-linux-gnu", "ld-linux-aarch64.so.1"}, nil
	}
	return Arch{}, fmt.Errorf("sandbox runs on x86-64 and on 64-bit ARM, and this machine is %s", goarch)
}

// runNeeds is what building the default image and running a sandbox take.
func runNeeds(arch Arch) []Need {
	return []Need{
		{
			ID: needQEMU, Name: "QEMU", Why: "to run guests",
			Programs: []string{"qemu-system-" + arch.QEMU},
			Version:  regexp.MustCompile(`version (\d+)\.(\d+)`),
			Minimum:  Version{7, 2},
			Wanted:   Version{10, 0},
			Lacking:  "snapshots of sandboxes with shares",
		},
		{
			ID: needVirtiofsd, Name: "virtiofsd (the one written in Rust)", Why: "to share directories with guests",
			Programs: []string{"virtiofsd"},
			Dirs:     []string{"/usr/libexec", "/usr/lib/qemu", "/usr/lib", "/usr/local/libexec/sandbox"},
			// QEMU's old daemon in C says "virtiofsd version 7.2.22": the pattern must not take it for a newer one.
			Version: regexp.MustCompile(`(?m)^virtiofsd(?: backend)? (\d+)\.(\d+)`),
			Minimum: Version{1, 13}, // the first with --readonly and --translate-uid
		},
		{
			ID: needMmdebstrap, Name: "mmdebstrap", Why: "to build the default image",
			Programs: []string{"mmdebstrap"},
		},
		{
			ID: needUIDMap, Name: "newuidmap and newgidmap", Why: "to build images and share directories without root",
			Programs: []string{"newuidmap", "newgidmap"},
		},
		{
			ID: needKeyring, Name: "Debian's archive keys", Why: "to check the packages of the default image",
			Files: []string{
				"/usr/share/keyrings/debian-archive-keyring.gpg",
				"/usr/share/keyrings/debian-archive-keyring.pgp",
			},
		},
	}
}

// testNeeds is what the tests take besides runNeeds.
func testNeeds(release Release, arch Arch) []Need {
	return slices.Concat(foreignNeeds(arch), oldNeeds(release, arch), []Need{
		{
			ID: needCompiler, Name: "a C compiler", Why: "for Go's race detector",
			Programs: []string{"gcc"}, Files: []string{"/usr/include/stdlib.h"},
		},
		{
			ID: needImageTools, Name: "QEMU's image tools", Why: "to judge the disks that sandbox makes",
			Programs: []string{"qemu-img", "qemu-io"},
		},
		{
			ID: needSSH, Name: "OpenSSH's client", Why: "to test that plain ssh reaches a guest",
			Programs: []string{"ssh", "ssh-keygen"},
		},
		{
			ID: needGnuPG, Name: "GnuPG", Why: "to test that a guest signs with keys of gpg-agent",
			Programs: []string{"gpg", "gpg-agent", "gpgconf"},
		},
		{
			ID: needTmux, Name: "tmux", Why: "to test terminals",
			Programs: []string{"tmux"},
		},
		{
			ID: needBus, Name: "D-Bus's daemon", Why: "to test notifications on the desktop",
			Programs: []string{"dbus-daemon"},
		},
		{
			ID: needNix, Name: "Nix", Why: "to test the flake, and images that Nix builds",
			Programs: []string{"nix"},
			Version:  regexp.MustCompile(`(?m)^nix \(.*\) (\d+)\.(\d+)`),
			Minimum:  Version{2, 18}, // the first whose lock files and flake commands are those that the tests use
		},
		{
			ID: needLibvirt, Name: "libvirt with its driver for QEMU", Why: "to test the monitors of libvirt's domains",
			Programs: []string{"libvirtd"},
			Files: []string{
				"/usr/lib/" + arch.Multiarch + "/libvirt/connection-driver/libvirt_driver_qemu.so",
				"/usr/lib64/libvirt/connection-driver/libvirt_driver_qemu.so",
				"/usr/lib/libvirt/connection-driver/libvirt_driver_qemu.so",
			},
		},
	})
}

// foreignNeeds is what guests with an ARM processor take on a machine that has none.
func foreignNeeds(arch Arch) []Need {
	if arch.Debian == "arm64" {
		return nil
	}
	return []Need{
		{
			ID: needOtherQEMU, Name: "QEMU for aarch64", Why: "to run guests with an ARM processor",
			Programs: []string{"qemu-system-aarch64"},
		},
		{
			ID: needEmulator, Name: "QEMU's user-mode emulator, static", Why: "to build images for an ARM processor",
			Files: []string{"/usr/bin/qemu-aarch64-static", "/usr/bin/qemu-aarch64"},
		},
	}
}

// oldNeeds is what guests in the oldest QEMU take, on the release that has that.
func oldNeeds(release Release, arch Arch) []Need {
	table, _ := supplies(release, arch)
	old := table[needOldQEMU].Borrow
	if old == nil {
		return nil
	}
	return []Need{{
		ID: needOldQEMU, Name: "QEMU 7.2 beside the newer one", Why: "to test guests in the oldest QEMU that sandboxes run in",
		Files: []string{filepath.Join(old.Dir(), old.Binary)},
	}}
}

// patchelf is needed only where a program has to be borrowed.
func patchelf() Need {
	return Need{ID: needPatchelf, Name: "patchelf", Why: "to make borrowed programs find their libraries", Programs: []string{"patchelf"}}
}

// needsOf returns the needs of the set with the given name, "run" or "test".
func needsOf(set string, release Release, arch Arch) []Need {
	if set == "test" {
		return slices.Concat(runNeeds(arch), testNeeds(release, arch))
	}
	return runNeeds(arch)
}

// Found is what is on the machine for one need.
type Found struct {
	Path    string // of the first program or of the file; empty when something is absent
	Version Version
	Absent  []string // programs and files that were not found
}

// Shortcoming says in a clause why found does not satisfy n ("is missing", "is version 6.2, and …"), or "".
func (n Need) Shortcoming(found Found) string {
	switch {
	case found.Path == "":
		return "is missing"
	case n.Version == nil:
		return ""
	case found.Version == Version{}:
		return "at " + found.Path + " is of another kind: it names no version that we know"
	case found.Version.Less(n.Minimum):
		return fmt.Sprintf("at %s is version %s, and sandbox needs %s", found.Path, found.Version, n.Minimum)
	}
	return ""
}
