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
  sandbox.root.links = {
    "usr/lib" = "${debian}/lib";
    "usr/libexec" = "${debian}/libexec";
    "usr/share" = "${debian}/share";
    "usr/sbin" = "${debian}/bin";
    "lib/modules" = "/run/current-system/kernel-modules/lib/modules";
  }
  // lib.genAttrs' [ "dbus-broker" "mount" "umount" ] (
    name: lib.nameValuePair "usr/bin/${name}" "${debian}/bin/${name}"
  );
  systemd.tmpfiles.settings.debian."/run/sshd".d.mode = "0755";

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
