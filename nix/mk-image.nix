# mkImage { system, modules ? [ ], name ? "nixos" }: the directory of an image, ready for `sandbox image install` or
# `sandbox run --image`.
{
  nixpkgs,
  guest,
  revision,
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
    {
      sandbox.name = name;
      sandbox.revision = revision;
    }
  ]
  ++ modules;
}).config.system.build.sandboxImage
