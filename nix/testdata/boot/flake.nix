# nixpkgs with Debian's binaries: the modules, functions and names of a real tree, whose packages are filled from Debian's
# instead of being built. It takes the place of our flake's input where there is no binary cache.
{
  inputs = {
    tree.url = "github:nixos/nixpkgs/nixos-unstable";
    # What boot_test.go has prepared: Debian's packages, and the programs of this repository.
    debs = {
      url = "path:/nowhere";
      flake = false;
    };
    programs = {
      url = "path:/nowhere";
      flake = false;
    };
  };

  outputs =
    {
      tree,
      debs,
      programs,
      ...
    }:
    let
      system = "x86_64-linux";
      debian = import ./debian.nix { inherit system debs; };
      pkgs = import tree {
        localSystem = system;
        stdenvStages = import ./stages.nix { inherit tree debian programs; };
        overlays = [ (import ./packages.nix { inherit debian debs; }) ];
      };
    in
    {
      lib = tree.lib // {
        nixosSystem =
          args:
          tree.lib.nixosSystem (
            args
            // {
              modules = args.modules ++ [
                ./guest.nix
                {
                  nixpkgs.pkgs = pkgs;
                  _module.args.debian = debian;
                }
              ];
            }
          );
      };
      legacyPackages.${system} = pkgs;
    };
}
