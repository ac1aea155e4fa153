# Unpacks Debian's packages to $out, with usr/ as its top, and writes down in $out/packages which files are whose.
mkdir -p "$out/packages" root
for deb in "$debs"/*.deb; do
	dpkg-deb --extract "$deb" root
	name=${deb##*/}
	dpkg-deb --fsys-tarfile "$deb" | tar --list | sed -nE '
		s,^\./(usr/)?,,
		s,^sbin/,bin/,
		\,(^|/)$,d
		\,^share/(doc|doc-base|info|lintian|locale|man|bug)/,d
		p' > "$out/packages/${name%%_*}"
done
rm -rf root/usr/share/{doc,doc-base,info,lintian,locale,man,bug}
cp -a root/usr/. "$out"
rm -rf root/usr
find root -maxdepth 1 -type l -delete
cp -a root/. "$out"
chmod -R u+w "$out"
cd "$out"
cp -an sbin/. bin
rm -rf sbin
find . -type l -lname '/*' | while read -r link; do
	to=$out/$(readlink "$link" | sed -E 's,^/(usr/)?,,')
	[[ ! -e $to ]] || ln -sfn "$to" "$link"
done

# What the packages' scripts would do at their installation, as far as somebody misses it.
ln -s bash bin/sh
ln -s gawk bin/awk
ln -s nc.openbsd bin/nc
ln -s which.debianutils bin/which
echo bin/sh >> packages/bash
echo bin/awk >> packages/gawk
echo bin/nc >> packages/netcat-openbsd
echo bin/which >> packages/debianutils
mkdir -p etc/ssl/certs
cat share/ca-certificates/mozilla/*.crt > etc/ssl/certs/ca-bundle.crt
echo etc/ssl/certs/ca-bundle.crt >> packages/ca-certificates

# What systemd finds where it is installed would run besides what NixOS has chosen from it.
mkdir -p example/systemd
mv lib/systemd/system lib/systemd/user example/systemd
mv lib/sysctl.d lib/tmpfiles.d example
rm -rf lib/sysusers.d share/user-tmpfiles.d example/tmpfiles.d/nix-daemon.conf # of Debian's users and groups

rm -rf lib/klibc # of the initrd that the kernel's package wants

# Debian's paths, in what is text.
paths="s,/usr/s?bin/,$out/bin/,g; s,/usr/(lib|libexec|share)/,$out/\\1/,g; s,^(Exec[A-Za-z]+=-?)systemd-,\\1$out/bin/systemd-,"
grep -rlIE '/usr/(s?bin|lib|libexec|share)/|^Exec.*=-?systemd-' example share/dbus-1 | xargs -r sed -i -E "$paths"
grep -lIE '^#! ?/' -r bin lib/git-core lib/systemd libexec | xargs -r sed -i -E "1s,^#! ?(/usr)?/bin/,#!$out/bin/,"

# The loader, and where it looks. Of the libraries only those that say that themselves.
lib=$out/lib/x86_64-linux-gnu
rpath=$lib:$lib/systemd:$out/libexec/sudo
find bin lib libexec -type f -not -path 'lib/modules/*' -not -name 'ld-*' -not -name libc.so.6 -print0 |
	xargs -0 grep -lE --max-count=1 $'^\x7fELF' | while read -r file; do
	if patchelf --print-interpreter "$file" > /dev/null 2>&1; then
		patchelf --set-interpreter "$lib/ld-linux-x86-64.so.2" --force-rpath --set-rpath "$rpath" "$file"
	elif [[ -n $(patchelf --print-rpath "$file" 2> /dev/null) ]]; then
		patchelf --force-rpath --set-rpath "$rpath" "$file"
	fi
done

# Perl looks for its modules where it was made to be installed.
mv bin/perl libexec
cat > bin/perl <<END
#!$out/bin/bash
export PERL5LIB=\${PERL5LIB:+\$PERL5LIB:}$out/share/perl5:$lib/perl5/5.40:$lib/perl/5.40:$out/share/perl/5.40:$lib/perl-base
exec $out/libexec/perl "\$@"
END
chmod 755 bin/perl
