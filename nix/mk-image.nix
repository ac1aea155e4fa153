# mkImage { system, modules ? [ ], name ? "nixos" }: the directory of an image, as `sandbox image build`
# installs it.
{
  nixpkgs,
  guest,
}:
{
  system,
  modules ? [ ],
  name ? "nixos",
}:
(nixpkgs.lib.nixosSystem {
  modules = [
    guest
    {
      sandbox.name = name;
      # And not the argument "system", with which nixpkgs.buildPlatform could not be another: a module may set that.
      nixpkgs.hostPlatform = system;
    }
  ]
  ++ modules;
}).config.system.build.sandboxImage
