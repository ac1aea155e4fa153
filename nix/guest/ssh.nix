# Port 22. By default the agent answers it, with the sandbox's own keys. With services.openssh.enable, OpenSSH does, and
# the agent puts those keys where OpenSSH looks for them.
{ config, lib, ... }:
let
  cfg = config.services.openssh;
  user = config.users.users.${config.sandbox.user};
in
{
  services.openssh = {
    settings = {
      PasswordAuthentication = lib.mkDefault false; # the user has no password
      KbdInteractiveAuthentication = lib.mkDefault false; # nor anything else to type
      PermitRootLogin = lib.mkDefault "no"; # root is for the host, through the agent
    };
    # The agent's file. Other kinds would be made anew at each boot, and ssh would warn of them.
    hostKeys = lib.mkDefault [
      {
        type = "ed25519";
        path = "/etc/ssh/ssh_host_ed25519_key";
      }
    ];
    # sshd only when somebody connects.
    startWhenNeeded = lib.mkDefault true;
    # Whether there is a firewall is not for ssh to say, and its port is open in one that asks for it.
    openFirewall = lib.mkDefault true;
    # A logind would say so. The agent makes the directory, and commands of the host have it.
    extraConfig = lib.mkAfter ''
      Match User ${user.name}
        SetEnv XDG_RUNTIME_DIR=/run/user/${toString user.uid}
    '';
  };

  sandbox.guest = {
    listenSSH = if cfg.enable then 0 else 22;
    openSSH = cfg.enable;
  };
}
