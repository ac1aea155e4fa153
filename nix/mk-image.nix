# mkImage { system, modules ? [ ], name ? "nixos", specialArgs ? { } }: the directory of an image, as
# `sandbox image build` installs it.
{
  nixpkgs,
  guest,
}:
{
  system,
  modules ? [ ],
  name ? "nixos",
  specialArgs ? { },
}:
(nixpkgs.lib.nixosSystem {
  inherit specialArgs;
  modules = [
    guest
    {
      sandbox.name = nixpkgs.lib.mkDefault name;
      # And not the argument "system", with which nixpkgs.buildPlatform could not be another: a module may set that.
      nixpkgs.hostPlatform = nixpkgs.lib.mkDefault system;
    }
  ]
  ++ modules;
}).config.system.build.sandboxImage
