# Debian's packages, unpacked to one directory, whose programs find their loader and libraries there.
{ system, debs }:
builtins.derivation {
  name = "debian";
  inherit system debs;
  builder = "/bin/bash";
  args = [
    "-eu"
    ./debian.sh
  ];
  PATH = "/usr/bin:/bin:/usr/sbin:/sbin";
}
