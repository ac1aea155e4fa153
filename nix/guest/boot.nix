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
  inherit (config.sandbox) root;

  # File systems that the agent has mounted, with the options that NixOS has for them: to mount them anew would change
  # nothing, and takes two programs for each.
  sizes = {
    dev = "4m";
    shm = "10%";
    run = "5%";
  };
  mounted = {
    "/dev" = [ "nosuid" "strictatime" "mode=755" "size=${sizes.dev}" ];
    "/dev/pts" = [ "nosuid" "noexec" "mode=620" "ptmxmode=0666" "gid=${toString config.ids.gids.tty}" ];
    "/dev/shm" = [ "nosuid" "nodev" "strictatime" "mode=1777" "size=${sizes.shm}" ];
    "/run" = [ "nosuid" "nodev" "strictatime" "mode=755" "size=${sizes.run}" ];
    "/proc" = [ "nosuid" "noexec" "nodev" ];
    "/sys" = [ "nosuid" "noexec" "nodev" ];
  };
  # Those of NixOS that the agent has, and the others, which are mounted here.
  special = lib.partition (fs: mounted ? ${fs.mountPoint}) (
    (lib.toposort utils.fsBefore (lib.attrValues config.boot.specialFileSystems)).result
  );
  more = special.wrong;
  # To be mounted anew, by the activation.
  otherwise = lib.filter (fs: mounted.${fs.mountPoint} != fs.options) special.right;

  # What NixOS's second stage and the activation come to when the image has brought all that is the same at each boot: what
  # is mounted, by one program, and two links.
  fstab = pkgs.writeText "fstab" (
    lib.concatMapStrings (line: lib.concatStringsSep " " line + "\n") (
      lib.optional (config.boot.nixStoreMountOpts != [ ]) [
        "/nix/store"
        "/nix/store"
        "none"
        (lib.concatStringsSep "," ([ "bind" ] ++ config.boot.nixStoreMountOpts))
      ]
      ++ lib.optional config.security.enableWrappers [
        root.wrappers
        (dirOf config.security.wrapperDir)
        "none"
        "bind,nodev,X-mount.mkdir"
      ]
      ++ map (fs: [
        fs.device
        fs.mountPoint
        fs.fsType
        (lib.concatStringsSep "," (fs.options ++ [ "X-mount.mkdir" ]))
      ]) more
    )
  );
  links = pkgs.runCommand "links" { } ''
    mkdir $out
    ln -s ${toplevel} $out/booted-system
    ln -s ${toplevel} $out/current-system
  '';
  # The archive that a store is packed from has no capabilities.
  capabilities =
    lib.concatMap
      (wrapper: [
        "cap_setpcap,${wrapper.capabilities}"
        "${root.wrappers}/${baseNameOf config.security.wrapperDir}/${wrapper.program}"
      ])
      (
        lib.filter (wrapper: wrapper.enable && wrapper.capabilities != "") (
          lib.attrValues config.security.wrappers
        )
      );
  # Whether the activation has steps besides those of which the image has the result, or which are done here.
  activates =
    otherwise != [ ]
    || lib.any (step: step.text or step != "") (
      lib.attrValues (
        removeAttrs config.system.activationScripts [
          "binsh"
          "etc"
          "modprobe"
          "script" # all of them
          "specialfs"
          "users"
          "usrbinenv"
        ]
      )
    );
  rest = ''
    ${lib.optionalString (config.security.enableWrappers && capabilities != [ ]) ''
      ${pkgs.libcap.out}/bin/setcap ${lib.escapeShellArgs capabilities} &
    ''}
    mount --all --fstab ${fstab}
    cp --no-dereference ${links}/* /run
    ${
      if activates then
        "SANDBOX_ETC_IS_THERE=true ${toplevel}/activate || : # which says itself what has failed"
      else
        config.system.activationScripts.modprobe.text or ""
    }
    ${lib.optionalString (config.boot.postBootCommands != "")
      "${pkgs.runtimeShell} ${pkgs.writeText "local-cmds" config.boot.postBootCommands} || :"
    }
    ${lib.optionalString (config.security.enableWrappers && capabilities != [ ]) "wait $!"}
  '';
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

  # What the agent runs in the new root before any command: NixOS's own second stage, told that systemd is started by
  # somebody else, which makes /etc, /run/current-system and the users; and the script by which a service would make sudo
  # and its like, before which the first commands run. That is some fifty programs, each of which takes an emulated guest
  # 40 ms. Where the image has brought what they make (etc.nix), only the rest is done; on a disk it can be that of another
  # image, and then NixOS makes it into this one's.
  system.build.sandboxPrepare = pkgs.writeScript "prepare" ''
    #!${pkgs.runtimeShell}
    set -e
    export PATH=${lib.makeBinPath ([ pkgs.coreutils pkgs.util-linux ] ++ wrappers.path or [ ])}
    activated=/var/lib/nixos/sandbox-activated # which configuration /etc and the users are of: on a disk, others were before
    before=${toplevel}
    [[ ! -e $activated ]] || read -r before < $activated
    if ${
      if root == null then "false" else "[[ $before == ${toplevel} && /etc/static -ef ${root.etc} ]]"
    }; then
      :
      ${lib.optionalString (root != null) rest}
    else
      IN_NIXOS_SYSTEMD_STAGE1=true ${toplevel}/init
      ${lib.optionalString config.security.enableWrappers ''
        # The script starts four programs for each wrapper. Here a copy is closed to everybody as it is made, what root
        # copies is root's, and modes are set at the end, for all files that get the same.
        declare -A modes=()
        cp() { umask 777; command cp "$@"; umask 022; }
        chown() { [[ $1 == root:root ]] || command chown "$@"; }
        chmod() { [[ $1 == 0000 ]] || modes[$1]+=" $2"; }
        mkdir -p ${dirOf config.security.wrapperDir}
        mount -t tmpfs -o nodev,mode=755,size=${config.security.wrapperDirSize} tmpfs ${dirOf config.security.wrapperDir}
        ${wrappers.script}
        for mode in "''${!modes[@]}"; do command chmod "$mode" ''${modes[$mode]}; done
      ''}
    fi
    echo ${toplevel} > $activated
  '';

  system.build.earlyMountScript = lib.mkForce (
    pkgs.writeText "mounts.sh" (
      let
        mount = fs: ''
          specialMount "${fs.device}" "${fs.mountPoint}" "${lib.concatStringsSep "," fs.options}" "${fs.fsType}"
        '';
      in
      ''
        if [[ ! ''${SANDBOX_ETC_IS_THERE:-} ]]; then
        : # they are mounted otherwise
        ${lib.concatMapStrings mount more}
        fi
        ${lib.concatMapStrings mount otherwise}
      ''
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
