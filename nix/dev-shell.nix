# All that `make test` would otherwise install from the distribution, but for the Debian recipe, which wants Debian's
# archive keys and newuidmap from the system.
{ pkgs }:
pkgs.mkShell {
  packages = [
    pkgs.erofs-utils
    pkgs.go
    pkgs.mmdebstrap
    pkgs.nixfmt
    pkgs.openssh
    pkgs.qemu
    pkgs.tmux
    pkgs.virtiofsd
  ];
}
