package debian

import (
	"path"
	"slices"
	"strings"
)

// dropped is what the packages install and no sandbox needs, as prefixes of
// paths; a prefix that ends in / drops the content and keeps the directory.
func dropped() []string {
	return []string{
		// The kernel and its parts go beside the store; the rest is of no use.
		"boot/",
		"vmlinuz", "initrd.img",
		// Package lists and caches: apt fetches them anew.
		"var/lib/apt/lists/", "var/cache/", "var/log/",
		// What the installation left, differing from run to run.
		"usr/share/python3/debpython/__pycache__",
		"var/lib/systemd/random-seed", "var/lib/dpkg/lock", "var/lib/dpkg/triggers/Lock",
		"etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-", "etc/.pwd.lock",
		"etc/ssh/ssh_host_",
		"root/.npm", "root/.cache", "root/.config",
		// Documentation; copyright files stay, as their licences demand.
		"usr/share/doc/", "usr/share/doc-base/", "usr/share/info/", "usr/share/man/", "usr/share/lintian/",
		"usr/share/locale/",
		// Names and quirks of hardware that a virtual machine never has.
		"usr/lib/udev/hwdb",
		// The message bus starts when somebody calls it.
		"usr/lib/systemd/system/multi-user.target.wants/dbus.service",
		// Only for making an initial RAM disk, which we do ourselves.
		"usr/lib/klibc", "usr/share/initramfs-tools", "var/lib/initramfs-tools/",
		// The device nodes come with the kernel's devtmpfs.
		"dev/", "proc/", "sys/", "run/", "tmp/",
	}
}

// keep tells whether the file of that path belongs into the store. Programs
// expect the directories under /var even when they are empty.
func keep(name string, isDir bool, drop []string) bool {
	if strings.HasPrefix(name, "usr/share/doc/") && path.Base(name) == "copyright" {
		return true
	}
	if isDir && strings.HasPrefix(name, "var/") {
		return true
	}
	return !slices.ContainsFunc(drop, func(d string) bool { return strings.HasPrefix(name, d) })
}
