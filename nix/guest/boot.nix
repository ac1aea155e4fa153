# From the kernel to systemd. QEMU loads the kernel and the initrd itself: there is no firmware, no boot loader and no
# partition.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  wrappers = config.systemd.services.suid-sgid-wrappers;
in
{
  boot = {
    loader.grub.enable = false; # QEMU is the boot loader

    # The image brings an initrd of its own with the agent as its only program: it answers the host after two seconds
    # where systemd takes six to nine to reach its first service, it mounts what the host shares, and it lives on beside
    # systemd. agent.nix has the rest.
    initrd.enable = false;

    # Neither has a use in a machine without disks to assemble or another kernel to start.
    bcache.enable = false;
    swraid.enable = false;
    kexec.enable = false;

    # The preparation mounts these anew, with the numbers of the agent: what is in them is in memory, and has to leave
    # room for the system.
    devSize = "4m";
    devShmSize = "10%";
    runSize = "5%";

    # Quick enough, and a start that fails is explained by its console.
    consoleLogLevel = lib.mkDefault 5;
  };

  # Landlock and Yama are for the guest's own programs. The others have no policy here, and systemd's BPF program alone
  # takes seconds to be checked under emulation.
  security.lsm = lib.mkForce [
    "landlock"
    "yama"
  ];

  # What the agent runs in the new root before any command: it makes /etc, /run/current-system and the users, which is
  # NixOS's own second stage, told that systemd is started by somebody else. sudo and its like NixOS leaves to a service,
  # before which the first commands run: it makes them here, by the same script.
  system.build.sandboxPrepare = pkgs.writeScript "prepare" ''
    #!${pkgs.runtimeShell}
    set -e
    IN_NIXOS_SYSTEMD_STAGE1=true ${config.system.build.toplevel}/init
    ${lib.optionalString config.security.enableWrappers ''
      export PATH=${lib.makeBinPath (wrappers.path ++ [ pkgs.util-linux ])}
      mkdir -p /run/wrappers
      mount -t tmpfs -o nodev,mode=755,size=${config.security.wrapperDirSize} tmpfs /run/wrappers
      ${wrappers.script}
    ''}
  '';

  # An image is replaced and never switched to another configuration, so the programs for that stay out.
  system.switch.enable = false;
  system.disableInstallerTools = true;

  systemd = {
    # They are there already.
    services.suid-sgid-wrappers = lib.mkIf config.security.enableWrappers {
      unitConfig.ConditionPathExists = "!${config.security.wrapperDir}";
    };
    # For a root that only a program outside of it can unmount: here the agent's mounts end with the machine. It costs
    # seconds of each stop.
    shutdownRamfs.enable = false;
    # No TPM.
    tpm2.enable = false;
    # Like on every guest of ours: one that is told to stop has seconds, not minutes.
    settings.Manager.DefaultTimeoutStopSec = "10s";
  };
}
