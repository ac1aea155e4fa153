# What `make test` would otherwise install from the distribution, except for the Debian recipe: mmdebstrap is not in
# nixpkgs, and newuidmap has to be the system's.
{ pkgs }:
pkgs.mkShell {
  packages = [
    pkgs.erofs-utils
    pkgs.gnupg
    pkgs.go
    pkgs.nixfmt
    pkgs.openssh
    pkgs.qemu
    pkgs.tmux
    pkgs.virtiofsd
  ];
}
