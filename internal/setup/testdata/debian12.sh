mkdir -p /tmp/sandbox-setup/install-lists
mkdir -p /tmp/sandbox-setup/install-cache
mkdir -p /tmp/sandbox-setup/borrow-lists
mkdir -p /tmp/sandbox-setup/borrow-cache
mkdir -p /tmp/sandbox-setup/debs
mkdir -p /tmp/sandbox-setup/root
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
# write /tmp/sandbox-setup/borrow.sources:
#   Types: deb
#   URIs: http://mirror.example/debian
#   Suites: trixie
#   Components: main
#   Architectures: amd64
#   Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
# write /tmp/sandbox-setup/borrow-status:
# Reading the package lists, with those of bookworm-backports
apt-get -o Dir::Etc::sourcelist=/tmp/sandbox-setup/install.sources -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=/tmp/sandbox-setup/install-lists -o Acquire::Languages=none -o APT::Update::Error-Mode=any -o Dir::Cache=/tmp/sandbox-setup/install-cache update
# Installing qemu-system-x86, qemu-utils, patchelf, mmdebstrap, uidmap, debian-archive-keyring, qemu-system-arm, qemu-user, gcc, libc6-dev, openssh-client, tmux
sudo env DEBIAN_FRONTEND=noninteractive apt-get -y -o DPkg::Lock::Timeout=600 -o Dir::Etc::sourcelist=/tmp/sandbox-setup/install.sources -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=/tmp/sandbox-setup/install-lists -o Acquire::Languages=none -o APT::Update::Error-Mode=any -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -t bookworm-backports install --no-install-recommends qemu-system-x86 qemu-utils patchelf mmdebstrap uidmap debian-archive-keyring qemu-system-arm qemu-user gcc libc6-dev openssh-client tmux
# Reading the package list of trixie
apt-get -o Dir::Etc::sourcelist=/tmp/sandbox-setup/borrow.sources -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=/tmp/sandbox-setup/borrow-lists -o Acquire::Languages=none -o APT::Update::Error-Mode=any -o Dir::Cache=/tmp/sandbox-setup/borrow-cache -o Dir::State::status=/tmp/sandbox-setup/borrow-status -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null update
# Downloading virtiofsd of trixie
cd /tmp/sandbox-setup/debs; apt-get -o Dir::Etc::sourcelist=/tmp/sandbox-setup/borrow.sources -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=/tmp/sandbox-setup/borrow-lists -o Acquire::Languages=none -o APT::Update::Error-Mode=any -o Dir::Cache=/tmp/sandbox-setup/borrow-cache -o Dir::State::status=/tmp/sandbox-setup/borrow-status -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null download virtiofsd libc6 libgcc-s1 libcap-ng0 libseccomp2
# Unpacking virtiofsd
cd /tmp/sandbox-setup/debs; sh -euc 'for deb in *.deb; do dpkg -x "$deb" "$1"; done' sh /tmp/sandbox-setup/root
patchelf --set-interpreter /usr/local/lib/sandbox/virtiofsd/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 --force-rpath --set-rpath /usr/local/lib/sandbox/virtiofsd/usr/lib/x86_64-linux-gnu /tmp/sandbox-setup/root/usr/libexec/virtiofsd
# Installing virtiofsd to /usr/local/lib/sandbox/virtiofsd
sudo rm -rf /usr/local/lib/sandbox/virtiofsd.new /usr/local/lib/sandbox/virtiofsd.old /usr/local/libexec/sandbox/virtiofsd.new
sudo install -d -m 755 /usr/local/lib/sandbox /usr/local/libexec/sandbox
sudo cp -a --no-preserve=ownership /tmp/sandbox-setup/root /usr/local/lib/sandbox/virtiofsd.new
sudo chmod -R u=rwX,go=rX /usr/local/lib/sandbox/virtiofsd.new
sudo mv -T /usr/local/lib/sandbox/virtiofsd /usr/local/lib/sandbox/virtiofsd.old
sudo mv -T /usr/local/lib/sandbox/virtiofsd.new /usr/local/lib/sandbox/virtiofsd
sudo ln -s /usr/local/lib/sandbox/virtiofsd/usr/libexec/virtiofsd /usr/local/libexec/sandbox/virtiofsd.new
sudo mv -T /usr/local/libexec/sandbox/virtiofsd.new /usr/local/libexec/sandbox/virtiofsd
sudo rm -rf /usr/local/lib/sandbox/virtiofsd.old
