mkdir -p /tmp/sandbox-setup/install-lists
mkdir -p /tmp/sandbox-setup/install-cache
mkdir -p /tmp/sandbox-setup/trixie-lists
mkdir -p /tmp/sandbox-setup/trixie-cache
mkdir -p /tmp/sandbox-setup/virtiofsd-debs/partial
mkdir -p /tmp/sandbox-setup/virtiofsd
mkdir -p /tmp/sandbox-setup/bookworm-lists
mkdir -p /tmp/sandbox-setup/bookworm-cache
mkdir -p /tmp/sandbox-setup/qemu-7.2-debs/partial
mkdir -p /tmp/sandbox-setup/qemu-7.2
mkdir -p /tmp/sandbox-setup/nix-debs/partial
mkdir -p /tmp/sandbox-setup/nix
# write /tmp/sandbox-setup/install.sources:
#   Types: deb
#   URIs: http://mirror.example/debian
#   Suites: bookworm bookworm-updates
#   Components: main contrib
#   Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
#
#   Types: deb
#   URIs: http://mirror.example/debian
#   Suites: bookworm-backports
#   Components: main
#   Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
#
#   Types: deb
#   URIs: http://mirror.example/debian-security
#   Suites: bookworm-security
#   Components: main
#   Signed-By:
#    -----BEGIN PGP PUBLIC KEY BLOCK-----
#    .
#    abc
#    -----END PGP PUBLIC KEY BLOCK-----
# write /tmp/sandbox-setup/trixie.sources:
#   Types: deb
#   URIs: http://mirror.example/debian
#   Suites: trixie
#   Components: main
#   Architectures: amd64
#   Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
# write /tmp/sandbox-setup/trixie-status:
# write /tmp/sandbox-setup/bookworm.sources:
#   Types: deb
#   URIs: http://mirror.example/debian
#   Suites: bookworm
#   Components: main
#   Architectures: amd64
#   Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
# write /tmp/sandbox-setup/bookworm-status:
# write /tmp/sandbox-setup/nix/launcher:
#   #!/bin/sh
#   # Nix from another release, with a configuration that needs no service: installed by sandbox's set-up for tests.
#   export NIX_CONF_DIR="${NIX_CONF_DIR:-/usr/local/lib/sandbox/nix}"
#   exec /usr/local/lib/sandbox/nix/usr/bin/nix "$@"
# write /tmp/sandbox-setup/nix/nix.conf:
#   # Of the Nix that was installed for sandbox's tests.
#   experimental-features = nix-command flakes
#   # Builds run as the user who asks for them, root too.
#   build-users-group =
#   # Where namespaces are forbidden, as in many containers, there is no sandbox to build in. Nor is there a Nix store to
#   # take its shell from.
#   sandbox = false
#   # The filter is the business of the sandbox, and in containers the kernel may refuse it.
#   filter-syscalls = false
# Reading the package lists, with those of bookworm-backports
apt-get -o Dir::Etc::sourcelist=/tmp/sandbox-setup/install.sources -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=/tmp/sandbox-setup/install-lists -o Acquire::Languages=none -o APT::Update::Error-Mode=any -o Dir::Cache=/tmp/sandbox-setup/install-cache update
# Installing qemu-system-x86, patchelf, mmdebstrap, uidmap, debian-archive-keyring, qemu-system-arm, qemu-user, gcc, libc6-dev, qemu-utils, openssh-client, gnupg, tmux, dbus-daemon, libvirt-daemon, libvirt-daemon-driver-qemu
sudo env DEBIAN_FRONTEND=noninteractive apt-get -y -o DPkg::Lock::Timeout=600 -o Dir::Etc::sourcelist=/tmp/sandbox-setup/install.sources -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=/tmp/sandbox-setup/install-lists -o Acquire::Languages=none -o APT::Update::Error-Mode=any -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -t bookworm-backports install --no-install-recommends qemu-system-x86 patchelf mmdebstrap uidmap debian-archive-keyring qemu-system-arm qemu-user gcc libc6-dev qemu-utils openssh-client gnupg tmux dbus-daemon libvirt-daemon libvirt-daemon-driver-qemu
# Reading the package list of trixie
apt-get -o Dir::Etc::sourcelist=/tmp/sandbox-setup/trixie.sources -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=/tmp/sandbox-setup/trixie-lists -o Acquire::Languages=none -o APT::Update::Error-Mode=any -o Dir::Cache=/tmp/sandbox-setup/trixie-cache -o Dir::State::status=/tmp/sandbox-setup/trixie-status -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null update
# Downloading virtiofsd of trixie
apt-get -o Dir::Etc::sourcelist=/tmp/sandbox-setup/trixie.sources -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=/tmp/sandbox-setup/trixie-lists -o Acquire::Languages=none -o APT::Update::Error-Mode=any -o Dir::Cache=/tmp/sandbox-setup/trixie-cache -o Dir::State::status=/tmp/sandbox-setup/trixie-status -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null -o Dir::Cache::archives=/tmp/sandbox-setup/virtiofsd-debs -o Debug::NoLocking=true -y --no-install-recommends --download-only install virtiofsd
# Unpacking virtiofsd
cd /tmp/sandbox-setup/virtiofsd-debs; sh -euc 'root=$1 binary=$2 arch=$3; shift 3
for deb in *.deb; do dpkg -x "$deb" all; done
install -D "all/$binary" "$root/$binary"
mkdir -p "$root/usr/lib"
mv "all/usr/lib/$arch" "$root/usr/lib"
if [ -d "all/lib/$arch" ]; then cp -a "all/lib/$arch/." "$root/usr/lib/$arch"; fi
for dir; do mkdir -p "$root/${dir%/*}"; mv "all/$dir" "$root/$dir"; done' sh /tmp/sandbox-setup/virtiofsd usr/libexec/virtiofsd x86_64-linux-gnu
patchelf --set-interpreter /usr/local/lib/sandbox/virtiofsd/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 --force-rpath --set-rpath /usr/local/lib/sandbox/virtiofsd/usr/lib/x86_64-linux-gnu /tmp/sandbox-setup/virtiofsd/usr/libexec/virtiofsd
# Installing virtiofsd to /usr/local/lib/sandbox/virtiofsd
sudo rm -rf /usr/local/lib/sandbox/virtiofsd.new /usr/local/lib/sandbox/virtiofsd.old /usr/local/libexec/sandbox/virtiofsd.new
sudo install -d -m 755 /usr/local/lib/sandbox /usr/local/libexec/sandbox
sudo cp -a --no-preserve=ownership /tmp/sandbox-setup/virtiofsd /usr/local/lib/sandbox/virtiofsd.new
sudo chmod -R u=rwX,go=rX /usr/local/lib/sandbox/virtiofsd.new
sudo mv -T /usr/local/lib/sandbox/virtiofsd /usr/local/lib/sandbox/virtiofsd.old
sudo mv -T /usr/local/lib/sandbox/virtiofsd.new /usr/local/lib/sandbox/virtiofsd
sudo ln -s /usr/local/lib/sandbox/virtiofsd/usr/libexec/virtiofsd /usr/local/libexec/sandbox/virtiofsd.new
sudo mv -T /usr/local/libexec/sandbox/virtiofsd.new /usr/local/libexec/sandbox/virtiofsd
sudo rm -rf /usr/local/lib/sandbox/virtiofsd.old
# Reading the package list of bookworm
apt-get -o Dir::Etc::sourcelist=/tmp/sandbox-setup/bookworm.sources -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=/tmp/sandbox-setup/bookworm-lists -o Acquire::Languages=none -o APT::Update::Error-Mode=any -o Dir::Cache=/tmp/sandbox-setup/bookworm-cache -o Dir::State::status=/tmp/sandbox-setup/bookworm-status -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null update
# Downloading qemu-7.2 of bookworm
apt-get -o Dir::Etc::sourcelist=/tmp/sandbox-setup/bookworm.sources -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=/tmp/sandbox-setup/bookworm-lists -o Acquire::Languages=none -o APT::Update::Error-Mode=any -o Dir::Cache=/tmp/sandbox-setup/bookworm-cache -o Dir::State::status=/tmp/sandbox-setup/bookworm-status -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null -o Dir::Cache::archives=/tmp/sandbox-setup/qemu-7.2-debs -o Debug::NoLocking=true -y --no-install-recommends --download-only install qemu-system-x86
# Unpacking qemu-7.2
cd /tmp/sandbox-setup/qemu-7.2-debs; sh -euc 'root=$1 binary=$2 arch=$3; shift 3
for deb in *.deb; do dpkg -x "$deb" all; done
install -D "all/$binary" "$root/$binary"
mkdir -p "$root/usr/lib"
mv "all/usr/lib/$arch" "$root/usr/lib"
if [ -d "all/lib/$arch" ]; then cp -a "all/lib/$arch/." "$root/usr/lib/$arch"; fi
for dir; do mkdir -p "$root/${dir%/*}"; mv "all/$dir" "$root/$dir"; done' sh /tmp/sandbox-setup/qemu-7.2 usr/bin/qemu-system-x86_64 x86_64-linux-gnu usr/share/qemu usr/share/seabios
patchelf --set-interpreter /usr/local/lib/sandbox/qemu-7.2/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 --force-rpath --set-rpath /usr/local/lib/sandbox/qemu-7.2/usr/lib/x86_64-linux-gnu /tmp/sandbox-setup/qemu-7.2/usr/bin/qemu-system-x86_64
# Installing qemu-7.2 to /usr/local/lib/sandbox/qemu-7.2
sudo rm -rf /usr/local/lib/sandbox/qemu-7.2.new /usr/local/lib/sandbox/qemu-7.2.old
sudo install -d -m 755 /usr/local/lib/sandbox
sudo cp -a --no-preserve=ownership /tmp/sandbox-setup/qemu-7.2 /usr/local/lib/sandbox/qemu-7.2.new
sudo chmod -R u=rwX,go=rX /usr/local/lib/sandbox/qemu-7.2.new
sudo mv -T /usr/local/lib/sandbox/qemu-7.2.new /usr/local/lib/sandbox/qemu-7.2
# Downloading nix of trixie
apt-get -o Dir::Etc::sourcelist=/tmp/sandbox-setup/trixie.sources -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=/tmp/sandbox-setup/trixie-lists -o Acquire::Languages=none -o APT::Update::Error-Mode=any -o Dir::Cache=/tmp/sandbox-setup/trixie-cache -o Dir::State::status=/tmp/sandbox-setup/trixie-status -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null -o Dir::Cache::archives=/tmp/sandbox-setup/nix-debs -o Debug::NoLocking=true -y --no-install-recommends --download-only install nix-bin
# Unpacking nix
cd /tmp/sandbox-setup/nix-debs; sh -euc 'root=$1 binary=$2 arch=$3; shift 3
for deb in *.deb; do dpkg -x "$deb" all; done
install -D "all/$binary" "$root/$binary"
mkdir -p "$root/usr/lib"
mv "all/usr/lib/$arch" "$root/usr/lib"
if [ -d "all/lib/$arch" ]; then cp -a "all/lib/$arch/." "$root/usr/lib/$arch"; fi
for dir; do mkdir -p "$root/${dir%/*}"; mv "all/$dir" "$root/$dir"; done' sh /tmp/sandbox-setup/nix usr/bin/nix x86_64-linux-gnu
patchelf --set-interpreter /usr/local/lib/sandbox/nix/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 --force-rpath --set-rpath /usr/local/lib/sandbox/nix/usr/lib/x86_64-linux-gnu /tmp/sandbox-setup/nix/usr/bin/nix
chmod 755 /tmp/sandbox-setup/nix/launcher
# Installing nix to /usr/local/lib/sandbox/nix
sudo rm -rf /usr/local/lib/sandbox/nix.new /usr/local/lib/sandbox/nix.old /usr/local/bin/nix.new
sudo install -d -m 755 /usr/local/lib/sandbox /usr/local/bin
sudo cp -a --no-preserve=ownership /tmp/sandbox-setup/nix /usr/local/lib/sandbox/nix.new
sudo chmod -R u=rwX,go=rX /usr/local/lib/sandbox/nix.new
sudo mv -T /usr/local/lib/sandbox/nix.new /usr/local/lib/sandbox/nix
sudo ln -s /usr/local/lib/sandbox/nix/launcher /usr/local/bin/nix.new
sudo mv -T /usr/local/bin/nix.new /usr/local/bin/nix
