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
  inherit system;
  modules = [
    guest
    { sandbox.name = name; }
  ]
  ++ modules;
}).config.system.build.sandboxImage
