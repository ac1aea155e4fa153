package debian

import (
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/image/rootfs"
)

// The user of every image of this recipe. The host maps these numbers to the
// user who started the sandbox.
const (
	userName = "agent"
	userID   = 1000
	userHome = "/home/agent"
)

func userShell(bare bool) string {
	if bare {
		return "/bin/bash" // which is essential
	}
	return "/usr/bin/zsh"
}

// overlay is everything that the recipe itself puts into the store.
func overlay() []rootfs.Entry {
	entries := []rootfs.Entry{
		{Name: "etc/systemd/system/default.target", Link: "/usr/lib/systemd/system/multi-user.target"},
		// Empty, not absent: systemd then makes an id at boot without treating
		// the boot as the first of a new installation.
		{Name: "etc/machine-id", Mode: 0o444},
		{Name: "etc/hostname", Mode: 0o644, Data: "sandbox\n"},
		{Name: "etc/hosts", Mode: 0o644, Data: hosts},
		{Name: "etc/fstab", Mode: 0o644, Data: "# The agent mounts the store, the home and the shares.\n"},
		{Name: "etc/resolv.conf", Mode: 0o644, Data: "# Written by the agent when it has a network lease.\n"},
		{Name: "etc/default/locale", Mode: 0o644, Data: "LANG=C.UTF-8\n"},
		{Name: "etc/locale.conf", Mode: 0o644, Data: "LANG=C.UTF-8\n"},
		{Name: "etc/environment", Mode: 0o644, Data: environment},
		{Name: "etc/sudoers.d/sandbox", Mode: 0o440, Data: sudoers},
		{Name: "etc/systemd/journald.conf.d/sandbox.conf", Mode: 0o644, Data: journald},
		{Name: "etc/systemd/system.conf.d/sandbox.conf", Mode: 0o644, Data: manager},
		{Name: "etc/systemd/system/systemd-journald.service.d/sandbox.conf", Mode: 0o644, Data: journaldService},
		{Name: "etc/systemd/system/systemd-tmpfiles-setup.service.d/sandbox.conf", Mode: 0o644, Data: tmpfilesService},
		{Name: "etc/modprobe.d/sandbox.conf", Mode: 0o644, Data: modprobe},
		{Name: "etc/tmpfiles.d/sandbox.conf", Mode: 0o644, Data: tmpfiles},
		{Name: "etc/tmpfiles.d/systemd-nologin.conf", Link: "/dev/null"},
		{Name: "etc/zsh/zprofile", Mode: 0o644, Data: zprofile},
		{Name: "etc/zsh/zshrc", Mode: 0o644, Data: zshrc},
		{Name: "etc/skel/.zshrc", Mode: 0o644, Data: "# Yours. Defaults are in /etc/zsh/zshrc.\n"},
		{Name: "etc/profile.d/sandbox.sh", Mode: 0o644, Data: profile},
		{Name: "etc/gitconfig", Mode: 0o644, Data: gitconfig},
		{Name: "home/", Mode: 0o755},
		{Name: "mnt/", Mode: 0o755},
	}
	for _, m := range units().Masks {
		entries = append(entries, rootfs.Entry{Name: "etc/systemd/system/" + m.Unit, Link: "/dev/null"})
	}
	for _, m := range units().Generators {
		entries = append(entries, rootfs.Entry{Name: "etc/systemd/system-generators/" + m.Unit, Link: "/dev/null"})
	}
	slices.SortFunc(entries, func(a, b rootfs.Entry) int { return strings.Compare(a.Name, b.Name) })
	return entries
}

// The agent replaces the second line by that of the sandbox's name.
const hosts = `127.0.0.1	localhost
127.0.1.1	sandbox
::1	localhost ip6-localhost ip6-loopback
`

// The only thing that the user may do as root: end its own machine.
const sudoers = `Defaults:agent !lecture
agent ALL=(root) NOPASSWD: /usr/sbin/shutdown
`

const journald = `[Journal]
Storage=volatile
RuntimeMaxUse=16M
Audit=no
`

// The confinement of journald costs seconds under emulation (each line is a
// mount, a BPF program or a seccomp filter), and protects it from nobody: the
// virtual machine is the boundary.
const journaldService = `[Service]
CapabilityBoundingSet=~
IPAddressDeny=
LockPersonality=no
MemoryDenyWriteExecute=no
NoNewPrivileges=no
PrivateMounts=no
ProtectClock=no
RestrictAddressFamilies=
RestrictNamespaces=no
RestrictRealtime=no
RestrictSUIDSGID=no
SystemCallArchitectures=
SystemCallFilter=
ImportCredential=
`

// One run for all of the file system instead of one for /dev and one for the
// rest.
const tmpfilesService = `[Service]
ExecStart=
ExecStart=systemd-tmpfiles --create --remove --boot
ImportCredential=
`

// What udev's rules would do. The kernel loads the module when the node is
// opened.
const tmpfiles = `d  /dev/net 0755 root root -
c! /dev/net/tun 0666 root root - 10:200
z  /dev/fuse 0666 root root -
`

// systemd loads these at each start, and nothing here uses them. Loading them by
// name works as ever.
const modprobe = `blacklist autofs4
blacklist dmi_sysfs
blacklist ip_tables
blacklist qemu_fw_cfg

# A guest that can start guests itself lets its user do so, as udev's rule would: what is in here cannot get out by it.
install kvm_amd modprobe --ignore-install kvm_amd $CMDLINE_OPTS && chmod 0666 /dev/kvm
install kvm_intel modprobe --ignore-install kvm_intel $CMDLINE_OPTS && chmod 0666 /dev/kvm
`

const manager = `[Manager]
# A guest that is told to stop has seconds, not minutes.
DefaultTimeoutStopSec=10s
StatusUnitFormat=name
`

// zsh asks an interactive user without start-up files what to do; a sandbox's
// home starts empty, so the defaults are here and the question is switched off.
const zshrc = `# Defaults of every interactive zsh in this sandbox; ~/.zshrc comes after.
zsh-newuser-install() { : }

setopt prompt_subst hist_ignore_all_dups share_history interactive_comments
bindkey -e
HISTFILE=~/.zsh_history
HISTSIZE=10000
SAVEHIST=10000

PROMPT='%F{green}%n@%m%f:%F{blue}%~%f%# '

autoload -Uz compinit
compinit -u

alias ls='ls --color=auto' grep='grep --color=auto' ll='ls -l'
alias shutdown='sudo shutdown' poweroff='sudo shutdown now'
`

// What every command has, in any shell and without one: the agent reads it.
const environment = `LANG=C.UTF-8
EDITOR=vim
PAGER=less
`

// Debian's zsh reads neither of these, in which installers put the PATH of what
// they install.
const zprofile = `# What a login of sh or bash reads; ~/.zprofile comes after.
emulate sh -c '
for file in /etc/profile.d/*.sh ~/.profile; do
	[ -r "$file" ] && . "$file"
done
unset file'
`

const profile = `# /etc/profile has forgotten them: programs that users install for themselves,
# and those of an administrator.
for dir in /usr/local/sbin /usr/sbin /sbin; do
	case ":$PATH:" in
	*":$dir:"*) ;;
	*) PATH="$PATH:$dir" ;;
	esac
done
case ":$PATH:" in
*":$HOME/.local/bin:"*) ;;
*) PATH="$HOME/.local/bin:$PATH" ;;
esac
unset dir
export PATH
`

// Shares belong to the user of the guest, whoever made them on the host.
const gitconfig = `[init]
	defaultBranch = main
`
