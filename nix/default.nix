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

  # For what runs on another processor than it is built on, the compiler of a third is of no use.
  programsFor =
    { buildPlatform, hostPlatform, ... }:
    if buildPlatform.system == hostPlatform.system then
      pkgsFor hostPlatform.system
    else
      import nixpkgs {
        localSystem = buildPlatform.system;
        crossSystem = hostPlatform.system;
        overlays = [ self.overlays.default ];
      };

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
    # Makes any NixOS configuration a guest: its image is config.system.build.sandboxImage. Our programs in it come
    # from our own nixpkgs: the configuration's may have an older Go, or admit no overlay.
    guest =
      { pkgs, ... }:
      {
        imports = [ ./guest ];
        sandbox.agentPackage = lib.mkDefault (programsFor pkgs.stdenv).sandbox-agent;
        sandbox.mkimagePackage = lib.mkDefault (pkgsFor pkgs.stdenv.buildPlatform.system).sandbox-mkimage;
      };
    default = self.nixosModules.guest;
    # For the machine on which sandboxes run.
    host =
      { pkgs, ... }:
      {
        imports = [ ./host.nix ];
        programs.sandbox.package = lib.mkDefault (pkgsFor pkgs.stdenv.hostPlatform.system).sandbox;
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

  apps = forAll (
    pkgs:
    let
      run =
        image:
        pkgs.writeShellScript "run" ''
          exec ${lib.getExe pkgs.sandbox} run --image ${image} "$@"
        '';
      app = program: description: {
        type = "app";
        program = toString program;
        meta = { inherit description; };
      };
      packages = self.packages.${pkgs.stdenv.hostPlatform.system};
    in
    {
      default = app (lib.getExe pkgs.sandbox) pkgs.sandbox.meta.description;
      image = app (run packages.image) "sandbox run, with the plain guest";
      agent-vm = app (run packages.agent-vm) "sandbox run, with the guest that has AI agents";
    }
  );

  checks = forAll (
    pkgs:
    import ./checks.nix {
      inherit pkgs;
      inherit (self.packages.${pkgs.stdenv.hostPlatform.system}) image;
    }
  );

  # What takes a builder with KVM, and is therefore no part of `nix flake check`.
  legacyPackages = forAll (pkgs: {
    smoke = import ./smoke.nix {
      inherit pkgs;
      inherit (self.packages.${pkgs.stdenv.hostPlatform.system}) image;
    };
  });

  devShells = forAll (pkgs: {
    default = import ./dev-shell.nix { inherit pkgs; };
  });

  formatter = forAll (pkgs: pkgs.nixfmt-tree);

  templates.default = {
    path = ./template;
    description = "a guest image with packages of your own";
  };
}
