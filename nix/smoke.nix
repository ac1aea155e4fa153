# The real image, booted: `nix build .#smoke`.
{ pkgs, image }:
pkgs.runCommand "sandbox-smoke"
  {
    nativeBuildInputs = [ pkgs.sandbox ];
    # Without it the boot would be emulated, and the checks would take minutes.
    requiredSystemFeatures = [ "kvm" ];
  }
  ''
    export HOME=$PWD/home XDG_RUNTIME_DIR=$PWD/run
    mkdir -m 700 "$HOME" "$XDG_RUNTIME_DIR"
    sandbox smoke ${image}
    touch $out
  ''
