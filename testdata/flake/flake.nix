# An image that builds without a network and without nixpkgs: its builder is a
# program of this project, which also is all that runs in the guest. README.md
# says how to put together what it takes.
{
  description = "the smallest image that a sandbox runs, and some that it must refuse";

  outputs =
    { self }:
    let
      parts =
        if builtins.pathExists ./parts then
          ./parts
        else
          throw "testdata/flake lacks its directory parts, which `make image-flake` makes; as Git does not track it, Nix sees it in path:testdata/flake only";

      mkImage =
        system: environment:
        builtins.derivation (
          {
            name = "tiny-image";
            inherit system;
            builder = parts + "/mkimage";
            kernel = parts + "/kernel";
            initrd = parts + "/initrd.img";
            agent = parts + "/sandbox-agent";
            packages = builtins.toJSON [
              {
                name = "tiny";
                version = "1";
                size = 1000;
              }
              {
                name = "old";
                version = "0.9";
              }
            ];
          }
          // environment
        );

      packages = system: {
        image = mkImage system { };
        changed = mkImage system {
          shell = "/bin/answer";
          packages = builtins.toJSON [
            {
              name = "tiny";
              version = "2";
              size = 3000;
            }
            {
              name = "new";
              version = "0.1";
              size = 20;
            }
          ];
        };

        # Each breaks the contract of images in the way of its name.
        no-directory = mkImage system { spoil = "no-directory"; };
        no-manifest = mkImage system { spoil = "no-manifest"; };
        bad-json = mkImage system { spoil = "bad-json"; };
        bad-version = mkImage system { spoil = "bad-version"; };
        unknown-field = mkImage system { spoil = "unknown-field"; };
        no-user = mkImage system { spoil = "no-user"; };
        missing-file = mkImage system { spoil = "missing-file"; };
        linked-file = mkImage system { spoil = "linked-file"; };
        wrong-size = mkImage system { spoil = "wrong-size"; };
        wrong-digest = mkImage system { spoil = "wrong-digest"; };
        other-system = mkImage system { spoil = "other-system"; };

        # And these do not build.
        failing = mkImage system { spoil = "failure"; };
        dependent = mkImage system { needs = (packages system).failing; };
        throwing = throw "this image is out of stock";
        many =
          mkImage system {
            outputs = [
              "out"
              "log"
            ];
          }
          // {
            meta.outputsToInstall = [
              "out"
              "log"
            ];
          };
      };
    in
    {
      packages = {
        x86_64-linux = packages "x86_64-linux";
        aarch64-linux = packages "aarch64-linux";
      };
    };
}
