# Where Debian's programs are not what NixOS expects.
{
  lib,
  pkgs,
  debian,
  ...
}:
{
  boot.kernelPackages = pkgs.linuxPackagesFor pkgs.linux_debian;

  # Paths that are compiled into Debian's programs: systemd's own and what it unmounts with, modules of PAM, NSS and the
  # kernel, plug-ins of sudo, the broker that is started by its launcher.
  system.activationScripts.debian = ''
    mkdir -p /usr/bin /lib /run/sshd
    ln -sfn ${debian}/{lib,libexec,share} /usr/
    ln -sfn ${debian}/bin /usr/sbin
    ln -sfn ${debian}/bin/{dbus-broker,mount,umount} /usr/bin/
    ln -sfn /run/current-system/kernel-modules/lib/modules /lib/
  '';

  # Debian's util-linux is older than lastlog2.
  systemd.services.lastlog2-import.enable = lib.mkForce false;

  # Other locales take an archive that Debian makes at installation.
  i18n.defaultLocale = "C.UTF-8";
  i18n.extraLocales = lib.mkForce [ ];

  # It takes a kernel that is made as a library.
  networking.nftables.checkRuleset = false;

  # The shell that Debian's Nix puts into each builder's room is in a package that nothing here depends on.
  nix.settings.sandbox-paths = [ ];

  # Debian's journald is older than "keep", and would turn auditing on.
  services.journald.audit = false;

  # Debian has no nsncd.
  services.nscd.enableNsncd = false;
}
