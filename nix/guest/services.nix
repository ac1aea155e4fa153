# What runs, and what does not. The units that systemd itself would start are in units.nix.
{ config, lib, ... }:
{
  # The log dies with the sandbox; on a disk it would only grow.
  services.journald = {
    storage = lib.mkDefault "volatile";
    extraConfig = "RuntimeMaxUse=16M";
  };
  # A volatile one has nowhere to be flushed to.
  systemd.services.systemd-journal-flush.enable = lib.mkDefault (config.services.journald.storage != "volatile");

  # The console is a log, and shells come from the agent (sandbox attach): no terminal asks for a login. There is no
  # virtual terminal either.
  console.enable = false;

  # NixOS has it started for logind, which is masked (units.nix).
  systemd.sockets.dbus.wantedBy = [ "sockets.target" ];

  systemd.oomd.enable = lib.mkDefault false; # one user's processes: the kernel's own killer spares the agent
  systemd.coredump.enable = lib.mkDefault false; # nobody would look, and it could fill the disk
  services.udisks2.enable = lib.mkForce false; # no disk is ever plugged in
  security.polkit.enable = lib.mkDefault false; # nobody to ask
  powerManagement.enable = false; # the host's business; two units less
  fonts.fontconfig.enable = lib.mkDefault false; # no screen

  # Nothing waits for the network: the agent announces it.
  systemd.network.wait-online.enable = false;
}
