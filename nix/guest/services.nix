# What runs, and what does not. The units that systemd itself would start are in units.nix.
{ config, lib, ... }:
let
  userTmpfiles = config.systemd.user.tmpfiles;
in
{
  # The log dies with the sandbox; on a disk it would only grow.
  services.journald = {
    storage = lib.mkDefault "volatile";
    extraConfig = "RuntimeMaxUse=16M";
  };
  # A volatile one has nowhere to be flushed to.
  systemd.services.systemd-journal-flush.enable = lib.mkDefault (config.services.journald.storage != "volatile");

  # As in the Debian image: journald's confinement costs an emulated guest seconds (each line is a mount, a BPF program or a
  # seccomp filter), and protects it from nobody, since the virtual machine is the boundary.
  systemd.services.systemd-journald.serviceConfig = lib.mapAttrs (_: lib.mkDefault) {
    CapabilityBoundingSet = "~";
    ImportCredential = "";
    IPAddressDeny = "";
    LockPersonality = false;
    MemoryDenyWriteExecute = false;
    NoNewPrivileges = false;
    PrivateMounts = false;
    ProtectClock = false;
    RestrictAddressFamilies = "";
    RestrictNamespaces = false;
    RestrictRealtime = false;
    RestrictSUIDSGID = false;
    SystemCallArchitectures = "";
    SystemCallFilter = "";
  };
  # The same of a service for which the start of all others waits. It keeps running as a user of its own.
  systemd.services.nscd.serviceConfig = lib.mkIf config.services.nscd.enable (
    lib.mapAttrs (_: lib.mkOverride 90) {
      PrivateTmp = false;
      ProtectHome = false;
      ProtectSystem = false;
      RestrictSUIDSGID = false;
    }
  );
  # Nothing is audited unless somebody asks for it.
  systemd.sockets.systemd-journald-audit.enable = lib.mkDefault (
    (config.services.journald.audit or null) == true
    || config.security.audit.enable == true
    || config.security.auditd.enable
  );

  # Nor does the manager of a user run it for rules that nobody has made.
  systemd.user.tmpfiles.enable = lib.mkDefault (
    userTmpfiles.rules != [ ] || lib.any (user: user.rules != [ ]) (lib.attrValues userTmpfiles.users)
  );

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
