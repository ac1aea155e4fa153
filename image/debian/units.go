package debian

// mask is a systemd unit that the image masks, and why a sandbox can do without
// it. Starting a unit costs a fork and an exec or more, which is what a guest's
// boot time is made of; a masked unit is not even loaded.
type mask struct {
	unit   string
	reason string
}

// masks is the one table of units that a sandbox does not need. Whoever needs
// one in a running guest uses `systemctl unmask --runtime` as root.
func masks() []mask {
	return []mask{
		// Logins. The agent starts sessions; nobody sits at a console.
		{"systemd-logind.service", "there are no seats; sessions come from the agent, and power-off goes to systemd directly"},
		{"dbus-org.freedesktop.login1.service", "the bus name of systemd-logind, which would only fail to start it"},
		{"systemd-user-sessions.service", "/run/nologin is never made (see tmpfiles), so nothing must remove it"},
		{"getty.target", "no terminal asks for a login"},
		{"getty@.service", "no virtual terminals"},
		{"getty-static.service", "no virtual terminals"},
		{"serial-getty@.service", "the console is a log; the agent gives shells"},
		{"console-getty.service", "the console is a log; the agent gives shells"},
		{"autovt@.service", "no virtual terminals"},
		{"systemd-ask-password-console.path", "nobody can type a password there"},
		{"systemd-ask-password-wall.path", "nobody can type a password there"},
		{"ssh.service", "the agent answers port 22 with the sandbox's own keys"},
		{"ssh.socket", "the agent answers port 22 with the sandbox's own keys"},
		{"sshd-keygen.service", "an image has no host keys, and the agent brings its own"},

		// Catching up with a changed /usr. The store never changes, and its
		// caches were made when it was built.
		{"ldconfig.service", "the linker's cache is part of the store"},
		{"systemd-hwdb-update.service", "the hardware database is part of the store"},
		{"systemd-journal-catalog-update.service", "the message catalogue is part of the store"},
		{"systemd-sysusers.service", "the users are part of the store"},
		{"systemd-update-done.service", "only marks that the four above ran"},
		{"systemd-firstboot.service", "asks questions at a console"},
		{"systemd-machine-id-commit.service", "the machine id belongs to one boot"},

		// Early pseudo file systems that a sandbox's programs do not look at.
		{"dev-hugepages.mount", "no huge pages are reserved"},
		{"dev-mqueue.mount", "POSIX message queues work unmounted"},
		{"sys-kernel-config.mount", "no gadgets nor targets are configured"},
		{"sys-kernel-debug.mount", "for kernel developers, who can mount it"},
		{"sys-kernel-tracing.mount", "for kernel developers, who can mount it"},
		{"sys-fs-fuse-connections.mount", "controls FUSE connections by hand"},
		{"proc-sys-fs-binfmt_misc.automount", "no foreign executables are registered"},
		{"proc-sys-fs-binfmt_misc.mount", "no foreign executables are registered"},
		{"systemd-binfmt.service", "no foreign executables are registered"},
		{"run-lock.mount", "the directory in /run does as well"},
		{"tmp.mount", "/tmp is writable through the overlay; with a disk it must not eat memory"},
		{"systemd-remount-fs.service", "the agent mounted the root as it must be"},

		// Modules and devices. The initial RAM disk loaded what a sandbox has.
		{"kmod-static-nodes.service", "the kernel's own /dev has the nodes of loaded modules"},
		{"modprobe@.service", "asked for by units that mount what is masked above"},
		{"systemd-modules-load.service", "no modules are listed"},
		{"systemd-tmpfiles-setup-dev.service", "systemd-tmpfiles-setup does its work in the same run (see its drop-in)"},
		{"systemd-tmpfiles-setup-dev-early.service", "prepares /dev for udev"},
		// udev costs a third of the boot. The kernel makes the device nodes,
		// the agent brings the network up, and tmpfiles opens what users may
		// open; nothing is plugged in that needs a rule.
		{"systemd-udevd.service", "the kernel's own /dev is enough"},
		{"systemd-udevd-control.socket", "would start udev"},
		{"systemd-udevd-kernel.socket", "would start udev"},
		{"systemd-udev-trigger.service", "would tell udev about each device"},
		{"systemd-udev-load-credentials.service", "udev's configuration from the firmware"},
		{"systemd-udev-settle.service", "would wait for udev"},

		// Hardware that a virtual machine has not.
		{"systemd-pstore.service", "no firmware keeps a crash log"},
		{"systemd-hibernate-clear.service", "no firmware keeps a hibernation location"},
		{"systemd-random-seed.service", "the host gives entropy at each boot, and by virtio-rng"},
		{"systemd-tpm2-setup.service", "no TPM"},
		{"systemd-tpm2-setup-early.service", "no TPM"},
		{"systemd-pcrmachine.service", "no TPM"},
		{"systemd-pcrphase.service", "no TPM"},
		{"systemd-pcrphase-sysinit.service", "no TPM"},
		{"systemd-pcrextend.socket", "no TPM"},
		{"systemd-pcrlock.socket", "no TPM"},
		{"systemd-rfkill.service", "no radios"},
		{"systemd-rfkill.socket", "no radios"},
		{"systemd-backlight@.service", "no screen"},

		// Listeners that nobody talks to.
		{"systemd-hostnamed.socket", "the agent sets the host's name; over the bus hostnamed starts without it"},
		{"systemd-creds.socket", "credentials are not used"},
		{"systemd-sysext.socket", "system extensions are not used"},
		{"systemd-initctl.socket", "System V's telinit is not used"},
		{"syslog.socket", "the journal is the log"},
		{"systemd-journal-flush.service", "the journal is volatile and has nowhere to be flushed to"},

		// Timers and what they start: a sandbox is short-lived, and its
		// packages are those of its image.
		{"apt-daily.timer", "no package lists are fetched behind the user's back"},
		{"apt-daily-upgrade.timer", "no packages change behind the user's back"},
		{"apt-daily.service", "see its timer"},
		{"apt-daily-upgrade.service", "see its timer"},
		{"dpkg-db-backup.timer", "the package database is in the store"},
		{"e2scrub_all.timer", "no ext4 on LVM"},
		{"e2scrub_reap.service", "no ext4 on LVM"},
		{"fstrim.timer", "discards are passed on as they happen"},
		{"man-db.timer", "the manual's index is not kept"},
		{"logrotate.timer", "logs die with the overlay"},
		{"motd-news.timer", "no news at login"},
		{"systemd-tmpfiles-clean.timer", "a sandbox does not live long enough"},
		{"remote-fs.target", "shares are mounted by the agent"},
	}
}

// generators is what systemd runs at each start to make units, and why none is
// to be made. Each costs a process before the first unit starts.
func generators() []mask {
	return []mask{
		{"systemd-debug-generator", "for a debug shell on a console"},
		{"systemd-fstab-generator", "fstab is empty; the agent mounts"},
		{"systemd-getty-generator", "no terminal asks for a login"},
		{"systemd-gpt-auto-generator", "there are no partitions"},
		{"systemd-hibernate-resume-generator", "no hibernation"},
		{"systemd-rc-local-generator", "no rc.local"},
		{"systemd-run-generator", "commands come from the agent"},
		{"systemd-ssh-generator", "would let sshd listen on vsock beside the agent"},
		{"systemd-system-update-generator", "no offline updates"},
		{"systemd-sysv-generator", "no System V scripts that a sandbox needs"},
		{"systemd-tpm2-generator", "no TPM"},
	}
}
