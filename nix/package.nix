# The programs, as an overlay of nixpkgs.
{ revision }:
final: _prev:
let
  inherit (final) lib;

  # Only what is compiled, so that a change of the documentation or of a guest module builds no program anew.
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../go.mod
      ../go.sum
      ../agent
      ../cmd
      ../image
      ../internal
      ../machine
      ../network
      ../nix/mkimage
      ../qemu
      ../qmp
      ../virtiofs
    ];
  };

  build =
    {
      pname,
      package,
      description,
      ...
    }@args:
    final.buildGoModule (
      {
        inherit pname src;
        version = if revision == null then "devel" else builtins.substring 0 12 revision;
        # Of go mod vendor; the tests in nix/ recompute it and print the new one.
        vendorHash = "sha256-MTp8H3E6uJuAorf/yHiEBxNiEpLj0cqPHDM3MrVf1qI=";
        subPackages = [ package ];
        # In the guest there is no library when the agent starts, and on the host none is needed.
        env.CGO_ENABLED = 0;
        # As the Makefile: the printing of manuals costs a quarter of each start.
        tags = [ "urfave_cli_no_docs" ];
        ldflags = [ "-X main.version=${if revision == null then "devel" else revision}" ];
        # checks.nix runs the tests, of all packages together.
        doCheck = false;
        meta = {
          inherit description;
          homepage = "https://github.com/sourcery-zone/sandbox";
          license = lib.licenses.mit;
          mainProgram = pname;
          platforms = lib.platforms.linux;
        };
      }
      // removeAttrs args [
        "package"
        "description"
      ]
    );
in
{
  sandbox = build {
    pname = "sandbox";
    package = "cmd/sandbox";
    description = "Run a program in a virtual machine of its own";
    nativeBuildInputs = [ final.makeWrapper ];
    # Last on the path, so that a QEMU of the user's own choice wins: this one has only the processor of the host, and a
    # fifth of the size.
    postInstall = ''
      wrapProgram $out/bin/sandbox --suffix PATH : ${
        lib.makeBinPath [
          final.qemu_kvm
          final.virtiofsd
        ]
      }
      # By which git reaches repositories in guests; the wrapper passes the name on.
      ln -s sandbox $out/bin/git-remote-sandbox
    '';
  };

  sandbox-agent = build {
    pname = "sandbox-agent";
    package = "cmd/sandbox-agent";
    description = "The program inside a sandbox's guest";
  };

  sandbox-mkimage = build {
    pname = "sandbox-mkimage";
    package = "nix/mkimage";
    description = "Put a sandbox's image together from what Nix built";
    meta.mainProgram = "mkimage";
  };
}
