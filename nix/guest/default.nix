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
