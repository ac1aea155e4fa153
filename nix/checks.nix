# What `nix flake check` builds.
{ pkgs, image }:
{
  # It fails to build unless the image keeps to the contract.
  inherit image;

  # The tests that boot nothing.
  go = pkgs.sandbox.overrideAttrs {
    pname = "sandbox-tests";
    src = ../.;
    subPackages = null;
    # Some start QEMU, without a guest in it.
    nativeCheckInputs = [
      pkgs.gnupg
      pkgs.openssh
      pkgs.qemu_kvm
      pkgs.virtiofsd
    ];
    doCheck = true;
    dontBuild = true;
    checkPhase = ''
      runHook preCheck
      go test ./...
      runHook postCheck
    '';
    installPhase = "touch $out";
    dontFixup = true;
  };

  format = pkgs.runCommand "sandbox-nix-format" { nativeBuildInputs = [ pkgs.nixfmt ]; } ''
    find ${../flake.nix} ${../nix} -name '*.nix' -print0 | xargs -0 nixfmt --check
    touch $out
  '';
}
