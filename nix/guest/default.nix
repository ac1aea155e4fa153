# The guest's half of the contract: import it into a NixOS configuration, and config.system.build.sandboxImage is an
# image. Nothing in it belongs to one sandbox: that comes from the host at each boot, through the agent.
{
  config,
  lib,
  modulesPath,
  ...
}:
{
  imports = [
    "${modulesPath}/profiles/minimal.nix" # no documentation, no graphical remnants, no perl among the packages
    ./agent.nix
    ./boot.nix
    ./etc.nix
    ./home-and-shares.nix
    ./image.nix
    ./network.nix
    ./nix.nix
    ./services.nix
    ./ssh.nix
    ./store.nix
    ./units.nix
    ./users.nix
  ];

  options.sandbox = {
    name = lib.mkOption {
      type = lib.types.strMatching "[a-z0-9][a-z0-9._-]{0,62}";
      default = "nixos";
      description = "What users call the image: `sandbox run --image NAME`.";
    };
    user = lib.mkOption {
      type = lib.types.strMatching "[a-z_][a-z0-9_-]{0,31}";
      default = "agent";
      description = "The name of the one user, whose home is /home/NAME.";
    };
    agentPackage = lib.mkOption {
      type = lib.types.package;
      description = ''
        The program in the guest that answers the host. By default the one of the flake that this module is from, built
        with the nixpkgs of that flake: its Go may be newer than that of the configuration's own nixpkgs.
      '';
    };
    mkimagePackage = lib.mkOption {
      type = lib.types.package;
      description = "What puts the image together, by default of the same flake. It runs where the image is built.";
    };
    compression = lib.mkOption {
      type = lib.types.enum [
        "small"
        "fast"
      ];
      default = "small";
      description = ''
        How the store is packed. "fast" takes a second where "small" takes a minute of a processor, and a quarter more
        room: for a guest that is built again and again while it is worked on.
      '';
    };
    memoryMiB = lib.mkOption {
      type = lib.types.ints.unsigned;
      default = 2560; # enough for an AI agent written for Node; not 2048, with which QEMU can hang
      description = "Memory of sandboxes that do not say otherwise, in MiB.";
    };
    cpus = lib.mkOption {
      type = lib.types.ints.unsigned;
      default = 2; # systemd's start takes a third longer with one
      description = "Processors of sandboxes that do not say otherwise.";
    };
  };

  # Nothing of a sandbox is carried over from one release to the next but the home, which no option here interprets.
  config.system.stateVersion = lib.mkDefault config.system.nixos.release;

  # For the name of the configuration, which would otherwise be that of the host.
  config.system.name = lib.mkDefault config.sandbox.name;
}
