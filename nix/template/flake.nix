{
  description = "A sandbox's guest with packages of my own";

  inputs.sandbox.url = "github:sourcery-zone/sandbox";

  outputs =
    { sandbox, ... }:
    {
      # sandbox image build     builds this and installs it
      # sandbox run --image mine --share . -- make test
      packages.x86_64-linux.image = sandbox.lib.mkImage {
        system = "x86_64-linux";
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
    };
}
