package debian

import (
	"path"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/image/rootfs"
)

// dropped is what the packages install and no sandbox needs, as patterns of
// path.Match for a file, or for a directory with all that is in it; one that ends
// in / drops the content and keeps the directory.
func dropped() []string {
	drop := []string{
		// The kernel and its parts go beside the store; the rest is of no use.
		"boot/",
		"vmlinuz*", "initrd.img*",
		// Package lists and caches: apt fetches them anew.
		"var/lib/apt/lists/", "var/cache/", "var/log/",
		// What the installation left, differing from run to run.
		"usr/share/python3/debpython/__pycache__",
		"var/lib/systemd/random-seed", "var/lib/dpkg/lock*", "var/lib/dpkg/triggers/Lock",
		"etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-", "etc/.pwd.lock",
		"etc/ssh/ssh_host_*",
		"etc/dpkg/dpkg.cfg.d/99mmdebstrap", // how the recipe installs is no rule for users
		"root/.npm", "root/.cache", "root/.config",
		// Documentation; copyright files stay, as their licences demand.
		"usr/share/doc/", "usr/share/doc-base/", "usr/share/info/", "usr/share/man/", "usr/share/lintian/",
		"usr/share/locale/",
		"usr/share/vim/vim*/doc", "usr/share/vim/vim*/lang", "usr/share/vim/vim*/tutor",
		"usr/share/perl/*/pod", "usr/local/lib/node_modules/npm/docs", "usr/local/lib/node_modules/npm/man",
		"usr/local/lib/node_modules/npm/node_modules/node-gyp/gyp/pylib/*/__pycache__",
		"usr/local/lib/node_modules/npm/node_modules/node-gyp/gyp/pylib/*/*/__pycache__",
		// For whoever writes modules for Perl in C, or TypeScript for Node.
		"usr/lib/*/perl/*/CORE", "usr/share/nodejs/@types", "usr/share/nodejs/undici-types",
		"usr/lib/*/perl/*/Devel/PPPort.pm", "usr/share/perl/*/Module/CoreList*",
		// How each script of the world sorts its letters, in Perl, and the character
		// sets of East Asia before Unicode; iconv and Python know them, too.
		"usr/share/perl/*/Unicode/Collate*", "usr/lib/*/perl/*/auto/Unicode/Collate",
		"usr/lib/*/perl/*/auto/Encode/CN", "usr/lib/*/perl/*/auto/Encode/JP",
		"usr/lib/*/perl/*/auto/Encode/KR", "usr/lib/*/perl/*/auto/Encode/TW",
		// The character sets of mainframes. Those of PCs begin with 4 and 8.
		"usr/lib/*/gconv/EBCDIC-*", "usr/lib/*/gconv/IBM[0-35-79]*",
		// Tests of Perl and Python themselves, and Python's help on its syntax.
		"usr/share/perl/*/unicore/TestNorm.pl",
		"usr/lib/python3*/test", "usr/lib/python3*/lib-dynload/*_test*", "usr/lib/python3*/lib-dynload/*xx*",
		"usr/lib/python3*/pydoc_data",
		// Git's login shell, servers, WebDAV, IMAP, Scalar and web pages, and what fetches
		// packs from a URI beside the server's; each program is half as large as Git itself.
		"usr/bin/git-shell", "usr/lib/git-core/git-shell",
		"usr/lib/git-core/git-daemon", "usr/lib/git-core/git-http-backend",
		"usr/lib/git-core/git-http-push", "usr/lib/git-core/git-http-fetch", "usr/lib/git-core/git-imap-send",
		"usr/bin/scalar", "usr/lib/git-core/scalar",
		"usr/lib/git-core/git-instaweb", "usr/share/gitweb",
		// Dictionaries in the letters of old; the one in UTF-8 stays.
		"usr/share/vim/vim*/spell/*.ascii.*", "usr/share/vim/vim*/spell/*.latin1.*", "usr/share/vim/vim*/spell/*.sug",
		"usr/share/vim/vim*/print",
		// Completion for commands of other systems.
		"usr/share/zsh/functions/Completion/AIX", "usr/share/zsh/functions/Completion/BSD",
		"usr/share/zsh/functions/Completion/Cygwin", "usr/share/zsh/functions/Completion/Darwin",
		"usr/share/zsh/functions/Completion/Mandriva", "usr/share/zsh/functions/Completion/Redhat",
		"usr/share/zsh/functions/Completion/Solaris", "usr/share/zsh/functions/Completion/openSUSE",
		// Sums of what the packages install, which is not all here, and what the making
		// of packages takes.
		"var/lib/dpkg/info/*.md5sums", "var/lib/dpkg/info/*.symbols",
		"usr/share/bug", // for Debian's bug reports
		// The texts are there, and zsh reads them as well.
		"usr/share/zsh/functions/*.zwc", "usr/share/zsh/functions/*/*.zwc",
		// Terminals of the last century; those that people have are kept.
		"usr/share/terminfo/*/",
		// Names and quirks of hardware that a virtual machine of ours never has.
		"usr/lib/udev/hwdb*",
		// The message bus starts when somebody calls it.
		"usr/lib/systemd/system/multi-user.target.wants/dbus.service",
		// Only for making an initial RAM disk, which we do ourselves.
		"usr/lib/klibc*", "usr/share/initramfs-tools", "var/lib/initramfs-tools/",
		// The device nodes come with the kernel's devtmpfs.
		"dev/", "proc/", "sys/", "run/", "tmp/",
	}
	for _, part := range droppedModules() {
		drop = append(drop, modulesPrefix+"*/kernel/"+part)
	}
	return drop
}

// droppedModules are the parts of the kernel that are dropped, below its directory
// of modules.
func droppedModules() []string {
	return []string{
		// Drivers of hardware that a virtual machine of ours never has.
		"drivers/ata", "drivers/bus", "drivers/comedi", "drivers/cpufreq", "drivers/cxl", "drivers/hid", "drivers/hv",
		"drivers/hwtracing", "drivers/infiniband", "drivers/leds", "drivers/media", "drivers/nvdimm", "drivers/platform",
		"drivers/soundwire", "drivers/thermal", "drivers/uio", "drivers/xen",
		"drivers/acpi/nfit", "drivers/firmware/google", "drivers/input/rmi4", "drivers/misc/vmw_*",
		"drivers/net/ethernet", "drivers/net/wwan", "drivers/net/hyperv", "drivers/net/vmxnet3", "drivers/net/xen*",
		"drivers/block/xen*",
		"drivers/scsi/hv_*", "drivers/scsi/ipr.ko*", "drivers/scsi/libsas", "drivers/scsi/mpi3mr", "drivers/scsi/vmw_*",
		"drivers/scsi/xen*", "drivers/scsi/BusLogic.ko*",
		// What only a cluster of machines has: its file systems, disks and protocols.
		"drivers/block/drbd", "drivers/block/rbd.ko*", "drivers/nvme/target", "drivers/target", "fs/ceph", "fs/orangefs",
		"net/ceph", "net/rds", "net/smc", "net/tipc", "net/sunrpc/xprtrdma",
		// Disks with a cache or with deduplication, and a file system that Linux has given up.
		"drivers/md/bcache", "drivers/md/dm-vdo", "fs/bcachefs",
	}
}

// terminals are the names, or how they begin, of the terminals whose
// descriptions stay.
func terminals() []string {
	return []string{
		"alacritty", "contour", "foot", "ghostty", "iterm", "kitty", "konsole", "mintty", "mlterm", "ms-terminal", "putty",
		"rio", "screen", "st-", "tmux", "vte", "wezterm", "xterm",
	}
}

// keep tells whether the file of that path belongs into the store. Programs
// expect the directories under /var even when they are empty.
func keep(name string, isDir bool, drop rootfs.Filter) bool {
	if strings.HasPrefix(name, "usr/share/doc/") && path.Base(name) == "copyright" {
		return true
	}
	if strings.HasPrefix(name, "usr/share/terminfo/") && hasPrefix(path.Base(name), terminals()) {
		return true
	}
	if isDir && strings.HasPrefix(name, "var/") {
		return true
	}
	return !drop.Covers(name)
}

func hasPrefix(name string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}
