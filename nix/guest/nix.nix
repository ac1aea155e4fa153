# Nix in the guest. The closure of the image is registered in the database that the image contains, so that what is
# there is not fetched again; what is built or fetched goes to the overlay.
{ lib, pkgs, ... }:
{
  nix = {
    settings = {
      allowed-users = [ "agent" ];
      trusted-users = [
        "root"
        "agent"
        "@wheel"
      ];
      experimental-features = [
        "nix-command"
        "flakes"
      ];
    };
    # Channels are kept by root, whom nobody is here.
    channel.enable = false;
    # Store paths are removed with the sandbox, not by a timer within.
    gc.automatic = false;
  };

  # They would put all of nixpkgs into each image, some 300 MB, to spare the first `nix shell nixpkgs#…` a download.
  nixpkgs.flake.setNixPath = lib.mkDefault false;
  nixpkgs.flake.setFlakeRegistry = lib.mkDefault false;

  # Flakes in a repository are read with it.
  environment.systemPackages = [ (lib.lowPrio pkgs.gitMinimal) ];
}
