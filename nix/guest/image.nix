# The image: manifest, kernel, initrd and store in one directory, built without root, the same for the same inputs.
{
  config,
  lib,
  pkgs,
  utils,
  ...
}:
let
  inherit (config.system.build) toplevel sandboxSbin;
  user = config.users.users.${config.sandbox.user};
  host = pkgs.buildPackages; # whose programs build, also where the guest has another processor

  # lz4hc halves the store at next to no cost for reading; zstd and lzma take several times as long to read for another
  # tenth. Plain lz4 reads the same, and is packed at once.
  compression = {
    small = "lz4hc,12";
    fast = "lz4";
  };

  closure = host.closureInfo {
    rootPaths = [
      toplevel
      config.system.build.sandboxPrepare
      (lib.getBin pkgs.e2fsprogs)
    ];
  };

  # The script of NixOS that makes what gives programs privileges, which runs here without privileges, and without
  # programs: what it would do is written down, a step to a line.
  wrappersScript =
    lib.replaceStrings [ "${pkgs.libcap.out}/bin/setcap" ] [ "setcap" ]
      config.systemd.services.suid-sgid-wrappers.script;

  # What mkimage reads: its type spec (nix/mkimage/main.go).
  spec = {
    manifest = {
      version = 1;
      inherit (config.sandbox) name;
      inherit (pkgs.stdenv.hostPlatform) system;
      store = {
        format = "erofs";
        label = "nix-store";
        mount = "/";
      };
      # Not what a boot loader would add: the console and the like are the launcher's business.
      cmdline = config.boot.kernelParams;
      init = "/sbin/init";
      user = {
        inherit (user) name uid home;
        inherit (config.users.groups.${user.group}) gid;
        shell = utils.toShellPath user.shell;
      };
      defaults = { inherit (config.sandbox) memoryMiB cpus; };
      agent.port = 1024; # above those that only root may take
      readiness.system = "systemd";
      requires = [
        "virtio-blk"
        "virtio-net"
        "virtiofs"
      ];
      provenance = {
        builder = "nix";
        # The same for the same inputs: files in a store have no other date.
        built = "1970-01-01T00:00:01Z";
      }
      // lib.optionalAttrs (config.system.configurationRevision != null) {
        revision = config.system.configurationRevision;
      };
    };
    guest = config.sandbox.guest;
    kernel = "${config.system.build.kernel}/${config.system.boot.loader.kernelFile}";
    modulesTree = "${config.system.modulesTree}/lib/modules/${config.boot.kernelPackages.kernel.modDirVersion}";
    inherit (config.sandbox.initrd) modules optionalModules;
    agent = lib.getExe config.sandbox.agentPackage;
    registration = "${closure}/registration";
    inherit (config.sandbox) root;
  };
in
{
  system.build.sandboxImage =
    host.runCommand "sandbox-image-${config.sandbox.name}"
      {
        nativeBuildInputs = [
          host.erofs-utils
          host.nix
          config.sandbox.mkimagePackage
          host.sqlite
        ];
        __structuredAttrs = true;
        # An image needs no store but its own: without this, having one would mean having everything in it twice.
        unsafeDiscardReferences.out = true;
        inherit closure spec;
        sbin = lib.mapAttrs (_: toString) sandboxSbin;
        passthru = {
          inherit spec toplevel;
          inherit config;
          packages = config.environment.systemPackages;
        };
      }
      ''
        root=$PWD/root
        mkdir -p "$root"/{bin,dev,etc,home,mnt,proc,run,sbin,sys,tmp,usr/bin,var/lib/nixos,nix/store,nix/var/nix/{daemon-socket,gcroots}}
        mkdir -m 700 "$root/root"
        chmod 1775 "$root/nix/store"
        chmod 1777 "$root/tmp"
        for name in "''${!sbin[@]}"; do
          ln -s "..''${sbin[$name]}" "$root/sbin/$name"
        done
        ln -s ${toplevel} "$root/nix/var/nix/gcroots/image"

        # Nix in the guest knows what it has, from the first moment. The times of registration are those of the files.
        export HOME=$PWD USER=nobody NIX_CONFIG='gc-reserved-space = 0'
        NIX_REMOTE="local?root=$root" nix-store --load-db < "$closure/registration"
        sqlite3 "$root/nix/var/nix/db/db.sqlite" 'UPDATE ValidPaths SET registrationTime = 1; VACUUM;'

        : > wrappers.steps # of which there are none if NixOS makes all of it in the guest
        ${lib.optionalString (config.sandbox.root != null && config.security.enableWrappers) ''
          (
            mktemp() { echo wrappers; }
            for step in chmod chown cp ln mv readlink rm setcap; do
              eval "$step() { echo $step \"\$@\" >&3; }"
            done
            PATH=
            ${wrappersScript}
          ) 3> wrappers.steps
        ''}

        # The identifier is fixed, because it would otherwise be random.
        mkdir "$out"
        {
          mkimage root "$NIX_ATTRS_JSON_FILE" wrappers.steps
          tar --create --format=posix --pax-option=delete=atime,delete=ctime --sort=name --mtime=@1 \
              --owner=0 --group=0 --numeric-owner --hard-dereference \
              ${lib.optionalString (config.sandbox.root != null) "--anchored --exclude=./nix/store"} \
              --directory="$root" . --directory=/ --verbatim-files-from --files-from=<(cut -c2- "$closure/store-paths")
        } | mkfs.erofs --quiet --tar=f -L nix-store -U 5b1c2c1e-7f0d-4f6a-9a52-5a0f7d3e6c11 -T 1 \
          -z${compression.${config.sandbox.compression}} -C65536 "$out/store.erofs"

        # Kernel, initrd and manifest.
        mkimage image "$NIX_ATTRS_JSON_FILE" "$out"
      '';
}
