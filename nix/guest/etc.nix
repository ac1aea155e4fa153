# /etc, the users and what gives programs privileges, which NixOS makes at each boot: two programs of Perl, fifty others
# and some three hundred links, half of the time to the first command of an emulated guest. They follow from the
# configuration, so the image brings them (nix/mkimage), and the activation leaves them out as long as they are what the
# image has brought.
{
  config,
  lib,
  utils,
  ...
}:
let
  users = lib.filter (user: user.enable or true) (lib.attrValues config.users.users);
  files = lib.filter (file: file.enable) (lib.attrValues config.environment.etc);

  # What only the guest itself can know, or must not be the same in all guests, keeps NixOS's own way.
  secret =
    user: user.password != null || user.initialPassword != null || user.hashedPasswordFile != null;
  inMemory = user: lib.any (dir: lib.hasPrefix dir user.home) [ "/run/" "/tmp/" ];
  foreign =
    file:
    !(lib.elem file.mode [
      "symlink"
      "direct-symlink"
    ])
    && !lib.hasPrefix builtins.storeDir "${file.source}";
  fromConfiguration =
    !(config.systemd.sysusers.enable || config.services.userborn.enable or false)
    && !config.system.etc.overlay.enable
    && !lib.any (user: secret user || user.createHome && inMemory user) users
    && !lib.any foreign files;

  unlessThere = lib.mkMerge [
    (lib.mkBefore "if [[ ! \${SANDBOX_ETC_IS_THERE:-} ]]; then")
    (lib.mkAfter "fi")
  ];
in
{
  options.sandbox.root = lib.mkOption {
    type = lib.types.nullOr (lib.types.attrsOf lib.types.anything);
    internal = true;
    description = "What of the root besides the store the image brings: type root of nix/mkimage. null: nothing.";
  };

  config = {
    sandbox.root =
      if !fromConfiguration then
        null
      else
        {
          etc = "${config.system.build.etc}/etc";
          # By the configuration's own name: on a disk, a copy with capabilities stays, over whatever another image has there.
          wrappers = "/nix/var/wrappers/${
            lib.substring 0 32 (baseNameOf (builtins.unsafeDiscardStringContext config.system.build.toplevel))
          }";
          storeGroup = config.ids.gids.nixbld;
          links = {
            "bin/sh" = config.environment.binsh;
          }
          // lib.optionalAttrs (config.environment.usrbinenv != null) {
            "usr/bin/env" = config.environment.usrbinenv;
          };
          users = map (user: {
            inherit (user)
              name
              uid
              group
              description
              home
              homeMode
              createHome
              isSystemUser
              expires
              autoSubUidGidRange
              subUidRanges
              subGidRanges
              ;
            shell = utils.toShellPath user.shell;
            hashedPassword =
              if user.hashedPassword != null then user.hashedPassword else user.initialHashedPassword;
          }) users;
          groups = map (group: { inherit (group) name gid members; }) (lib.attrValues config.users.groups);
        };

    system.activationScripts = lib.mkIf fromConfiguration {
      users.text = unlessThere;
      etc.text = unlessThere;
      binsh.text = unlessThere;
    };
  };
}
