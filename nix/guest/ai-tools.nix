# AI agents and what they work with. Some are heavy, and claude-code is not free software: this is a module of its own.
{ lib, pkgs, ... }:
{
  nixpkgs.config.allowUnfreePredicate = package: lib.getName package == "claude-code";

  environment.systemPackages = [
    pkgs.claude-code
    pkgs.codex
    pkgs.devenv
    pkgs.direnv
    pkgs.emacs
    pkgs.gemini-cli
    pkgs.git
    pkgs.nix-direnv
    pkgs.nodejs_24 # for the skills of agents
    pkgs.opencode
    pkgs.tmux
    pkgs.vim
  ];
}
