{
  description = "sandbox: run a program in a virtual machine of its own";

  inputs.nixpkgs.url = "github:nixos/nixpkgs/nixos-unstable";

  outputs = inputs: import ./nix inputs;
}
