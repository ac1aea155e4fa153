# The one user.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  name = config.sandbox.user;
in
{
  users = {
    # Made from this description at each boot, and by nobody else.
    mutableUsers = false;
    # Nobody has a password: who is let in is decided by keys, on the host.
    allowNoPasswordLogin = true;

    # The host maps these numbers to the user who started the sandbox.
    groups.${name}.gid = 1000;
    users.${name} = {
      isNormalUser = true;
      uid = 1000;
      group = name;
      # Reads the log of its own machine.
      extraGroups = [ "systemd-journal" ];
      # Between what NixOS gives to ordinary users and what a configuration says itself.
      shell = lib.mkOverride 900 pkgs.zsh;
      # The agent does, on the file system that the host shares.
      createHome = false;
    };
  };

  # Where users put programs of their own; the agent's plain commands and all shells have the same path.
  environment.localBinInPath = lib.mkDefault true;

  programs.zsh = {
    enable = true;
    # zsh asks an interactive user without start-up files what to do, and a new home is empty.
    shellInit = "zsh-newuser-install() { : }";
  };

  # The only thing that the user may do as root: end its own machine.
  security.sudo.extraRules = [
    {
      users = [ name ];
      commands = [
        {
          command = "/run/current-system/sw/bin/shutdown";
          options = [ "NOPASSWD" ];
        }
      ];
    }
  ];
}
