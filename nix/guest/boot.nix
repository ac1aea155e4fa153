# From the kernel to systemd. QEMU loads the kernel and the initrd itself: there is no firmware, no boot loader and no
# partition.
{
  config,
  lib,
  pkgs,
  utils,
  ...
}:
let
  wrappers = config.systemd.services.suid-sgid-wrappers;
  inherit (config.system.build) toplevel;

  # File systems that the agent has mounted, with the options that NixOS has for them: to mount them anew would change
  # nothing, and takes two programs for each.
  sizes = {
    dev = "4m";
    shm = "10%";
    run = "5%";
  };
  mounted = {
    "/dev" = [ "nosuid" "strictatime" "mode=755" "size=${sizes.dev}" ];
    "/dev/shm" = [ "nosuid" "nodev" "strictatime" "mode=1777" "size=${sizes.shm}" ];
    "/run" = [ "nosuid" "nodev" "strictatime" "mode=755" "size=${sizes.run}" ];
    "/proc" = [ "nosuid" "noexec" "nodev" ];
    "/sys" = [ "nosuid" "noexec" "nodev" ];
  };
  isMounted = fs: mounted.${fs.mountPoint} or null == fs.options;
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

    # systemd loads them at each start, and nothing here uses them. Loading them by name works as ever.
    blacklistedKernelModules = [
      "autofs4"
      "dmi_sysfs"
      "qemu_fw_cfg"
    ];

    # The agent's numbers: what is in them is in memory, and has to leave room for the system.
    devSize = lib.mkDefault sizes.dev;
    devShmSize = lib.mkDefault sizes.shm;
    runSize = lib.mkDefault sizes.run;

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
  # NixOS's own second stage, told that systemd is started by somebody else. Most of that the image has brought (etc.nix);
  # on a disk it can be that of another image, and then NixOS makes it into this one's. sudo and its like NixOS leaves to
  # a service, before which the first commands run: it makes them here, by the same script.
  system.build.sandboxPrepare = pkgs.writeScript "prepare" ''
    #!${pkgs.runtimeShell}
    set -e
    activated=/var/lib/nixos/sandbox-activated # which configuration /etc and the users are of: on a disk, others were before
    # In a subshell. The script starts four programs for each wrapper, which an emulated guest notices: here a copy is closed
    # to everybody as it is made, what root copies is root's, and modes are set at the end, for all files that get the same.
    wrappers() (
      :
      ${lib.optionalString config.security.enableWrappers ''
        PATH=${lib.makeBinPath (wrappers.path ++ [ pkgs.util-linux ])}
        declare -A modes=()
        cp() { umask 777; command cp "$@"; umask 022; }
        chown() { [[ $1 == root:root ]] || command chown "$@"; }
        chmod() { [[ $1 == 0000 ]] || modes[$1]+=" $2"; }
        mkdir -p /run/wrappers
        mount -t tmpfs -o nodev,mode=755,size=${config.security.wrapperDirSize} tmpfs /run/wrappers
        ${wrappers.script}
        for mode in "''${!modes[@]}"; do command chmod "$mode" ''${modes[$mode]}; done
      ''}
    )

    if ${if config.sandbox.root == null then "false" else ''[[ /etc/static -ef ${config.sandbox.root.etc} ]]''}; then
      before=${toplevel}
      [[ ! -e $activated ]] || read -r before < $activated
      [[ $before != ${toplevel} ]] || export SANDBOX_ETC_IS_THERE=true
    fi
    if [[ ''${SANDBOX_ETC_IS_THERE:-} ]]; then
      # At the same time, as those to whom the programs belong are known.
      wrappers &
      IN_NIXOS_SYSTEMD_STAGE1=true ${toplevel}/init
      wait $!
    else
      IN_NIXOS_SYSTEMD_STAGE1=true ${toplevel}/init
      wrappers
    fi
    echo ${toplevel} > $activated
  '';

  system.build.earlyMountScript = lib.mkForce (
    pkgs.writeText "mounts.sh" (
      lib.concatMapStrings
        (fs: ''
          specialMount "${fs.device}" "${fs.mountPoint}" "${lib.concatStringsSep "," fs.options}" "${fs.fsType}"
        '')
        (
          lib.filter (fs: !isMounted fs)
            (lib.toposort utils.fsBefore (lib.attrValues config.boot.specialFileSystems)).result
        )
    )
  );

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
    settings.Manager.StatusUnitFormat = lib.mkDefault "name";
  };
}
