# The guest: any option of NixOS, and those of sandbox.
{ pkgs, ... }:
{
  sandbox.name = "mine";

  environment.systemPackages = [
    pkgs.gnumake
    pkgs.gcc
  ];
}
