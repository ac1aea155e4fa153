# How nixpkgs comes to its standard environment: in one stage, because there is no compiler to be built by another one.
# What nixpkgs has as a script (runCommand and the like) is run, and what would be compiled is filled from Debian's packages.
{
  tree,
  debian,
  programs,
}:
{
  lib,
  localSystem,
  config,
  overlays,
  ...
}:
let
  table = import ./table.nix;

  # In the place of the function that mkDerivation ends with.
  derivation =
    args:
    if args ? buildCommand || lib.any (name: lib.hasPrefix name (nameOf args)) table.real then
      builtins.derivation args
    else
      filled args;
  nameOf = args: args.pname or args.name;

  # Some packages read attributes of others that they do not build with.
  filled =
    args:
    let
      packages = table.filled.${nameOf args} or "unknown:${nameOf args}";
    in
    args
    // builtins.derivation {
      inherit (args) name;
      inherit (localSystem) system;
      outputs = args.outputs or [ "out" ];
      builder = "${debian}/bin/bash";
      args = [
        "-eu"
        ./fill.sh
      ];
      PATH = "${debian}/bin";
      inherit debian packages;
      pname = nameOf args;
      # And not for each: they change all the time.
      programs = lib.optionalString (lib.hasPrefix "program:" packages) "${programs}";
    };

  makeDerivation = builtins.scopedImport {
    inherit derivation;
  } "${tree}/pkgs/stdenv/generic/make-derivation.nix";

  libc = filled {
    name = "glibc";
    outputs = [
      "out"
      "bin"
      "dev"
      "static"
      "getent"
    ];
  };
  bintools = filled { name = "binutils"; } // {
    isGNU = true;
    isLLVM = false;
    targetPrefix = "";
    dynamicLinker = "${libc}/lib/ld-linux-x86-64.so.2";
    inherit bintools libc;
    libc_bin = libc.bin;
    libc_dev = libc.dev;
    libc_lib = libc;
  };
  gcc =
    filled {
      name = "gcc";
      outputs = [
        "out"
        "lib"
        "libgcc"
      ];
    }
    // {
      isGNU = true;
      isClang = false;
      version = "14.2.0";
      targetPrefix = "";
      cc = gcc;
      inherit libc bintools;
    };
in
[
  (_: {
    inherit config overlays;
    stdenv = import "${tree}/pkgs/stdenv/generic" { defaultConfig = config; } {
      buildPlatform = localSystem;
      hostPlatform = localSystem;
      targetPlatform = localSystem;
      shell = "${debian}/bin/bash";
      initialPath = [ debian ];
      preHook = "export NIX_ENFORCE_PURITY=";
      fetchurlBoot = _: throw "there is no network";
      mkDerivationFromStdenv = stdenv: (makeDerivation lib config stdenv).mkDerivation;
      cc = gcc;
    };
  })
]
