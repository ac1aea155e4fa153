# The guest of the project that this one replaces, github:sourcery-zone/agent-vm, in our form. Its packages are in
# guest/ai-tools.nix. agentvm_test.go compares the two.
{ pkgs, ... }:
{
  sandbox.name = "agent-vm";

  # It had 16 GiB and 8 processors, which are now the user's to say for each sandbox; these are for one AI agent with a
  # language server.
  sandbox.memoryMiB = 4096;
  sandbox.cpus = 4;

  # A real OpenSSH on port 22 instead of the agent's own server. guest/ssh.nix has the settings.
  services.openssh.enable = true;

  # What is forwarded to another port has to be opened here as well.
  networking.firewall.enable = true;
  networking.firewall.allowedTCPPorts = [
    22
    443
  ];

  # What every NixOS has and the plain image leaves out, because it is small: people and AI agents expect these.
  environment.defaultPackages = [
    pkgs.perl
    pkgs.rsync
    pkgs.strace
  ];
  documentation.enable = true;
  documentation.man.enable = true;
  # Programs that were not made for NixOS, as agents download them, find what they are linked with; those that need
  # more are told by a name to look for.
  programs.nix-ld.enable = true;
  environment.stub-ld.enable = true;
}
