# The units that a sandbox does without, and why: the table of the Debian recipe, which both kinds of image have. A
# configuration that needs one says systemd.services.NAME.enable = true, or what belongs to another kind of unit.
{ config, lib, ... }:
let
  table = lib.importJSON ../../image/debian/units.json;
  ours = lib.filter (entry: !(entry ? only));
  names = map (entry: entry.unit) (ours table.masks);

  # NixOS itself lists two modules, of which a guest has no keyboard for one, and the kernel loads the other when its node
  # (below) is opened.
  noModules =
    lib.subtractLists [ "atkbd" "loop" ] config.boot.kernelModules == [ ]
    && !lib.any (name: lib.hasPrefix "modules-load.d/" name && name != "modules-load.d/nixos.conf") (
      lib.attrNames config.environment.etc
    );

  # With udev, which is a service that modules of NixOS ask for, its units are as NixOS has them.
  mask = name: {
    enable = lib.mkDefault (lib.hasPrefix "systemd-udev" name && config.services.udev.enable);
  };
  masksOf =
    kind:
    lib.listToAttrs (
      map (name: lib.nameValuePair (lib.removeSuffix ".${kind}" name) (mask name)) (
        lib.filter (lib.hasSuffix ".${kind}") names
      )
    );
in
{
  services.udev.enable = lib.mkDefault false;

  systemd = {
    services = masksOf "service" // {
      systemd-modules-load.enable = lib.mkDefault (!noModules);
      # One run for all of the file system, instead of one for /dev and one for the rest.
      systemd-tmpfiles-setup.serviceConfig = {
        ExecStart = [
          ""
          "${config.systemd.package}/bin/systemd-tmpfiles --create --remove --boot"
        ];
        ImportCredential = lib.mkDefault "";
      };
    };
    sockets = masksOf "socket";
    targets = masksOf "target";
    timers = masksOf "timer";
    paths = masksOf "path";
    # NixOS knows mounts by where they are, and these are systemd's own.
    units = lib.genAttrs (lib.filter (lib.hasSuffix ".mount") names) mask;

    generators = lib.listToAttrs (
      map (entry: lib.nameValuePair entry.unit (lib.mkDefault "/dev/null")) (ours table.generators)
    );

    # What udev's rules would do. The kernel loads the module when the node is opened.
    tmpfiles.settings.sandbox = {
      "/dev/net".d.mode = "0755";
      "/dev/net/tun"."c!" = {
        mode = "0666";
        argument = "10:200";
      };
      "/dev/fuse".z.mode = "0666";
      "/dev/loop-control"."c!" = {
        mode = "0600";
        argument = "10:237";
      };
    };
  };
}
