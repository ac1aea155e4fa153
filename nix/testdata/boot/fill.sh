# Fills the outputs of a package of nixpkgs with links to the files of Debian's $packages.

# link links the files of one package of Debian's here.
link() {
	local -A files=()
	local file from to
	while read -r file; do
		from=$debian/$file
		case $file in
		lib/systemd/system/* | lib/systemd/user/* | lib/tmpfiles.d/* | lib/sysctl.d/*)
			from=$debian/example/${file#lib/}
			;;
		esac
		[[ -f $from || -L $from ]] || continue # a directory, or left out
		to=${file/#lib\/x86_64-linux-gnu\//lib/}
		files[${to%/*}]+=" $from"
	done < "$debian/packages/$1"
	for to in "${!files[@]}"; do
		mkdir -p "$to"
		ln -sf -t "$to" ${files[$to]}
	done
}

for output in $outputs; do
	mkdir "${!output}"
	case $output in debug | dev | devdoc | doc | info | man) continue ;; esac
	cd "${!output}"
	for package in $packages; do
		case $package in
		unknown:*)
			echo "table.nix does not say which of Debian's packages fills ${package#*:}" >&2
			exit 1
			;;
		program:*)
			mkdir -p bin
			cp "$programs/${package#*:}" bin
			;;
		*) link "$package" ;;
		esac
	done
	[[ ! -d bin ]] || ln -s bin sbin
done

# What is arranged in another way, or is no package of Debian's.
cd "$out"
case $name in
*-unsecvars) # a header of glibc's source: what programs with privileges do without
	cat > unsecvars.h <<'END'
#define UNSECURE_ENVVARS_TUNABLES "GLIBC_TUNABLES\0"
#define UNSECURE_ENVVARS "GCONV_PATH\0LD_AUDIT\0LD_LIBRARY_PATH\0LD_PRELOAD\0LOCPATH\0TMPDIR\0"
END
	;;
esac
case $pname in
systemd) # and, masked, what NixOS takes over from its own, newer one
	cp -a "$debian/example" .
	chmod -R u+w example
	cd example/systemd/system
	mkdir factory-reset.target.wants
	ln -s nothing factory-reset.target.wants
	for unit in \
		cryptsetup{,-pre}.target remote-cryptsetup.target machines.target \
		dbus-org.freedesktop.{import,machine,portable}1.service systemd-{importd,machined,portabled}.service \
		systemd-{importd,machined}.socket systemd-nspawn@.service \
		systemd-{ask-password,bootctl,factory-reset,journalctl,mute-console,repart}{.socket,@.service} \
		systemd-factory-reset-{reboot,request}.service systemd-{bless-boot,boot-random-seed}.service \
		systemd-tpm2-clear.service systemd-udevd-varlink.socket systemd-update-utmp.service; do
		ln -s /dev/null "$unit"
	done
	;;
linux-debian)
	ln -s "$debian"/boot/vmlinuz-* bzImage
	ln -s "$debian/lib" "$modules"
	;;
nix) # Debian's is about groups of Debian's
	mkdir -p lib/tmpfiles.d
	echo 'd /nix/var/nix/daemon-socket 0755 root root - -' > lib/tmpfiles.d/nix-daemon.conf
	;;
kmod-blacklist | kmod-debian-aliases.conf) : > modprobe.conf ;;
util-linux) # Debian's has no lastlog2
	mkdir -p "$lastlog/lib/tmpfiles.d"
	: > "$lastlog/lib/tmpfiles.d/lastlog2.conf"
	;;
gcc) # the machine's, for programs that need no library of it
	mkdir bin nix-support
	echo 'export CC=gcc' > nix-support/setup-hook
	printf '#!%s\nPATH=/usr/bin exec gcc -static "$@"\n' "$debian/bin/bash" > bin/cc
	chmod 755 bin/cc
	ln -s cc bin/gcc
	;;
esac
