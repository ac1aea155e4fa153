# The outputs of the flake.
{ self, nixpkgs }:
let
  inherit (nixpkgs) lib;

  # What the launcher runs on, and what an image can be for.
  systems = [
    "x86_64-linux"
    "aarch64-linux"
  ];

  forAll = each: lib.genAttrs systems (system: each (pkgsFor system));
  pkgsFor = system: nixpkgs.legacyPackages.${system}.extend self.overlays.default;

  # Stamped into programs and manifests: where they came from.
  revision = self.rev or self.dirtyRev or null;
  stamp.system.configurationRevision = revision;

  agentVM =
    system:
    nixpkgs.lib.nixosSystem {
      inherit system;
      modules = [
        self.nixosModules.guest
        self.nixosModules.ai-tools
        ./agent-vm.nix
        stamp
      ];
    };
in
{
  overlays.default = import ./package.nix { inherit revision; };

  nixosModules = {
    # Makes any NixOS configuration a guest: its image is config.system.build.sandboxImage.
    guest = {
      imports = [ ./guest ];
      nixpkgs.overlays = [ self.overlays.default ];
    };
    # What the replaced project's guest had besides; heavy, and therefore apart.
    ai-tools = ./guest/ai-tools.nix;
  };

  lib.mkImage = import ./mk-image.nix {
    inherit nixpkgs;
    inherit (self.nixosModules) guest;
  };

  nixosConfigurations.agent-vm = agentVM "x86_64-linux";

  packages = forAll (pkgs: {
    inherit (pkgs) sandbox sandbox-agent;
    default = pkgs.sandbox;
    image = self.lib.mkImage {
      system = pkgs.stdenv.hostPlatform.system;
      modules = [ stamp ];
    };
    agent-vm = (agentVM pkgs.stdenv.hostPlatform.system).config.system.build.sandboxImage;
  });

  apps = forAll (pkgs: {
    default = {
      type = "app";
      program = lib.getExe pkgs.sandbox;
      meta = { inherit (pkgs.sandbox.meta) description; };
    };
  });

  checks = forAll (
    pkgs:
    import ./checks.nix {
      inherit pkgs;
      inherit (self.packages.${pkgs.stdenv.hostPlatform.system}) image;
    }
  );

  devShells = forAll (pkgs: {
    default = import ./dev-shell.nix { inherit pkgs; };
  });

  formatter = forAll (pkgs: pkgs.nixfmt-tree);

  templates.default = {
    path = ./template;
    description = "a guest image with packages of your own";
  };
}
