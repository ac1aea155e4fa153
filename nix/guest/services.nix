# What runs, and what does not.
{ lib, ... }:
let
  off = {
    enable = false;
  };
in
{
  # The log dies with the sandbox; on a disk it would only grow.
  services.journald = {
    storage = lib.mkDefault "volatile";
    extraConfig = "RuntimeMaxUse=16M";
  };

  # The console is a log, and shells come from the agent (sandbox attach): no terminal asks for a login. There is no
  # virtual terminal either.
  console.enable = false;
  systemd.services = {
    "getty@" = off;
    "autovt@" = off;
    "serial-getty@" = off;
    "console-getty" = off;

    # There are no seats. For a login by OpenSSH it would put a new /run/user/1000 over the one that the commands of the
    # host use, and remove it at the logout. systemctl and shutdown talk to systemd itself.
    systemd-logind = off;
    "dbus-org.freedesktop.login1" = off;

    # The host gives entropy at each boot, and by virtio-rng.
    systemd-random-seed = off;
    # The machine id belongs to one boot; the agent writes it.
    systemd-machine-id-commit = off;
  };

  systemd.oomd.enable = lib.mkDefault false; # one user's processes: the kernel's own killer spares the agent
  systemd.coredump.enable = lib.mkDefault false; # nobody would look, and it could fill the disk
  services.udisks2.enable = lib.mkForce false; # no disk is ever plugged in
  security.polkit.enable = lib.mkDefault false; # nobody to ask
  powerManagement.enable = false; # the host's business; two units less
  fonts.fontconfig.enable = lib.mkDefault false; # no screen

  # Nothing waits for the network: the agent announces it.
  systemd.network.wait-online.enable = false;
}
