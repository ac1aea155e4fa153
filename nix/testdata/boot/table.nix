# Which of Debian's packages fill which of nixpkgs'.
{
  # What is built as nixpkgs says, though it is not written as a script. Names, or how they begin.
  real = [
    "builder.pl"
    "security-wrapper-"
    "stage-2-init.sh"
  ];

  # Lists of them; what is empty, nobody asks for.
  filled = {
    acl = "acl";
    attr = "attr";
    bash = "bash";
    bash-interactive = "bash";
    bash-completion = "bash-completion";
    bind = "bind9-host";
    bzip2 = "bzip2";
    Config-IniFiles = "libconfig-inifiles-perl";
    coreutils = "coreutils";
    coreutils-full = "coreutils";
    cpio = "cpio";
    curl = "curl";
    dbus = "dbus dbus-bin dbus-daemon dbus-session-bus-common dbus-system-bus-common dbus-user-session";
    dbus-broker = "dbus-broker";
    diffutils = "diffutils";
    dosfstools = "";
    e2fsprogs = "e2fsprogs";
    erofs-utils = "erofs-utils";
    File-Slurp = "libfile-slurp-perl";
    findutils = "findutils";
    gawk = "gawk";
    gcc = "";
    git-minimal = "git";
    glibc = "libc6 libc-bin netbase nscd";
    glibc-locales = "libc-bin";
    gnugrep = "grep";
    gnupg = "";
    gnused = "sed";
    gnutar = "tar";
    gzip = "gzip";
    hostname-debian = "hostname";
    iana-etc = "netbase";
    IO-Stringy = "libio-stringy-perl";
    iproute2 = "iproute2";
    iputils = "iputils-ping";
    JSON = "libjson-perl";
    jq = "jq";
    kmod = "kmod";
    kmod-blacklist = "";
    "kmod-debian-aliases.conf" = "";
    less = "less";
    libcap = "libcap2-bin";
    libressl = "netcat-openbsd";
    libxslt = "xsltproc";
    linux-headers = "";
    linux-debian = "linux-image-cloud-amd64";
    linux-pam = "libpam-modules libpam-modules-bin";
    lndir = "xutils-dev";
    mkpasswd = "whois";
    nano = "nano";
    ncurses = "ncurses-base ncurses-bin";
    nftables = "nftables";
    nix = "nix-bin nix-setup-systemd";
    nix-bash-completions = "";
    nix-info = "";
    nix-zsh-completions = "";
    nixos-firewall-tool = "";
    nixos-init = "";
    nsncd = "";
    nss-cacert = "ca-certificates";
    openssh = "openssh-client openssh-server openssh-sftp-server";
    patch = "patch";
    perl = "perl-base perl perl-modules-5.40";
    procps = "procps";
    sandbox-agent = "program:sandbox-agent";
    sandbox-mkimage = "program:mkimage";
    shadow = "passwd login uidmap util-linux";
    sqlite = "sqlite3";
    sudo = "sudo";
    systemd = "systemd systemd-sysv libpam-systemd libnss-systemd udev";
    time = "time";
    tzdata = "tzdata";
    util-linux = "util-linux mount login util-linux-extra bsdutils";
    util-linux-minimal = "util-linux mount login util-linux-extra bsdutils";
    which = "debianutils";
    xauth = "";
    xz = "xz-utils";
    zsh = "zsh zsh-common";
    zstd = "zstd";
  };
}
