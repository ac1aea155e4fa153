# What nixpkgs has in another form than Debian.
{ debian, debs }:
final: _prev: {
  # Scripts are not checked: what does that takes the whole of Haskell.
  shellcheck-minimal.compiler.bootstrapAvailable = false;

  linux_debian = final.lib.makeOverridable (
    {
      features ? { },
      kernelPatches ? [ ],
      ...
    }:
    final.stdenv.mkDerivation rec {
      pname = "linux-debian";
      version = builtins.head (builtins.split "\\+" modDirVersion);
      modDirVersion = final.lib.fileContents "${debs}/kernel";
      outputs = [
        "out"
        "modules"
        "dev"
      ];
      passthru = {
        inherit features kernelPatches modDirVersion;
        target = "bzImage";
        configfile = "${debian}/boot/config-${modDirVersion}";
        buildDTBs = false;
        isHardened = false;
        config = {
          isYes = _: true;
          isNo = _: false;
          isModule = _: true;
          isEnabled = _: true;
          isDisabled = _: false;
          isSet = _: true;
        };
        kernelAtLeast = final.lib.versionAtLeast version;
        kernelOlder = final.lib.versionOlder version;
      };
    }
  ) { };
}
