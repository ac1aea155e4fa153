# The machine on which sandboxes run: `programs.sandbox.enable` installs the program and what it needs, and
# `services.sandbox` keeps sandboxes that start with the machine.
{
  config,
  lib,
  ...
}:
let
  cfg = config.programs.sandbox;
  sandboxes = config.services.sandbox;
  owners = lib.unique (lib.mapAttrsToList (_: sandbox: sandbox.user) sandboxes);

  unit = name: sandbox: {
    description = "the sandbox ${name}";
    wantedBy = lib.optional sandbox.autostart "default.target";
    # Each user's manager has the unit, and one of them starts it.
    unitConfig.ConditionUser = sandbox.user;
    path = [ cfg.package ];
    # The first start makes it. What a later configuration says counts for one that is made anew: sandbox rm NAME.
    script = ''
      if sandbox inspect ${name} >/dev/null 2>&1; then
        exec sandbox start ${name}
      fi
      exec sandbox run -d --name ${name} ${lib.escapeShellArgs sandbox.options}
    '';
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStop = "${lib.getExe cfg.package} stop ${name}";
      # The guest may be emulated, and then takes its time.
      TimeoutStartSec = "10min";
    };
  };
in
{
  options = {
    programs.sandbox = {
      enable = lib.mkEnableOption "sandbox, which runs programs in virtual machines of their own";
      package = lib.mkOption {
        type = lib.types.package;
        description = "The program, by default of the flake that this module is from.";
      };
      users = lib.mkOption {
        type = lib.types.listOf lib.types.str;
        default = [ ];
        description = "Who may use KVM, without which guests are emulated.";
      };
    };
    services.sandbox = lib.mkOption {
      default = { };
      description = "Sandboxes, by their names.";
      type = lib.types.attrsOf (
        lib.types.submodule {
          options = {
            user = lib.mkOption {
              type = lib.types.str;
              description = "Whose it is. The user's services run from the machine's start on.";
            };
            options = lib.mkOption {
              type = lib.types.listOf lib.types.str;
              default = [ ];
              example = [
                "--image"
                "nixos"
                "--disk"
                "20G"
              ];
              description = "What `sandbox run` is told when it makes the sandbox.";
            };
            autostart = lib.mkOption {
              type = lib.types.bool;
              default = true;
              description = "Whether it starts with the machine, and not only by `systemctl --user start sandbox-NAME`.";
            };
          };
        }
      );
    };
  };

  config = lib.mkIf (cfg.enable || sandboxes != { }) {
    environment.systemPackages = [ cfg.package ];
    users.users = lib.mkMerge [
      (lib.genAttrs (lib.unique (cfg.users ++ owners)) (_: { extraGroups = [ "kvm" ]; }))
      (lib.genAttrs owners (_: { linger = true; }))
    ];
    systemd.user.services = lib.mapAttrs' (
      name: sandbox: lib.nameValuePair "sandbox-${name}" (unit name sandbox)
    ) sandboxes;
  };
}
