{
  description = "A sandbox's guest with packages of my own";

  inputs.sandbox.url = "github:sourcery-zone/sandbox";

  outputs =
    { sandbox, ... }:
    let
      image =
        system:
        sandbox.lib.mkImage {
          inherit system;
          name = "mine";
          modules = [
            (
              { pkgs, ... }:
              {
                environment.systemPackages = [
                  pkgs.gnumake
                  pkgs.gcc
                ];
              }
            )
          ];
        };
    in
    {
      # sandbox image build     builds the one for this machine and installs it
      # sandbox run --image mine --share . -- make test
      packages.x86_64-linux.image = image "x86_64-linux";
      packages.aarch64-linux.image = image "aarch64-linux";
    };
}
