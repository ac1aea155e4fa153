{
  description = "A sandbox's guest with packages of my own";

  # The guest's packages come from the first. sandbox brings its own nixpkgs for its programs: it is newer than a stable
  # release, and should not follow one.
  inputs.nixpkgs.url = "github:nixos/nixpkgs/nixos-unstable";
  inputs.sandbox.url = "github:sourcery-zone/sandbox";

  outputs =
    { nixpkgs, sandbox, ... }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      guest =
        system:
        nixpkgs.lib.nixosSystem {
          modules = [
            sandbox.nixosModules.default
            ./guest.nix
            { nixpkgs.hostPlatform = system; }
          ];
        };
    in
    {
      # sandbox image build     builds the one for this machine and installs it
      # sandbox run --image mine --share . -- make test
      packages = nixpkgs.lib.genAttrs systems (system: {
        image = (guest system).config.system.build.sandboxImage;
      });

      # nix repl .#nixosConfigurations.mine     to look at its options
      nixosConfigurations.mine = guest "x86_64-linux";

      formatter = nixpkgs.lib.genAttrs systems (system: nixpkgs.legacyPackages.${system}.nixfmt-tree);
    };
}
