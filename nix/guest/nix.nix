# Nix in the guest. The closure of the image is registered in the database that the image contains, so that what is
# there is not fetched again; what is built or fetched goes to the overlay.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  socket = "/nix/var/nix/daemon-socket/socket";
  inherit (config.system.nixos) revision;
in
{
  nix = {
    settings = {
      allowed-users = [ config.sandbox.user ]; # services have no business with it; root always may
      # As the user of a machine of its own, it may say what is fetched from where.
      trusted-users = [
        "root"
        config.sandbox.user
        "@wheel"
      ];
      # `nix shell` and everything that is written for flakes.
      experimental-features = [
        "nix-command"
        "flakes"
      ];
    };
    # Channels are kept by root, whom nobody is here.
    channel.enable = false;
  };

  # The first command may be Nix: the agent listens before systemd is there, which takes the socket over. It has to know
  # the unit for that when it looks at what is mounted, and starts the daemon when somebody has connected.
  systemd.sockets.nix-daemon = lib.mkIf config.nix.enable {
    wantedBy = [ "local-fs.target" ];
    before = [ "shutdown.target" ];
    conflicts = [ "shutdown.target" ];
    unitConfig.DefaultDependencies = false;
  };
  sandbox.guest = lib.mkIf config.nix.enable { listen = [ socket ]; };

  # They would put all of nixpkgs into each image, some 300 MB, to spare the first `nix shell nixpkgs#…` a download.
  nixpkgs.flake.setNixPath = lib.mkDefault false;
  nixpkgs.flake.setFlakeRegistry = lib.mkDefault false;
  # Of the same revision as the image, of which most is there already, and not of whatever is the newest that day.
  nix.registry = lib.mkIf (revision != null && !config.nixpkgs.flake.setFlakeRegistry) {
    nixpkgs.to = lib.mkDefault {
      type = "github";
      owner = "NixOS";
      repo = "nixpkgs";
      rev = revision;
    };
  };

  # Flakes in a repository are read with it.
  environment.systemPackages = [ (lib.lowPrio pkgs.gitMinimal) ];
}
