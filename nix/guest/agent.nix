# The agent: process 1 of the initrd, which becomes systemd when it has mounted everything, and the service that answers
# the host and lives on beside it.
{
  config,
  lib,
  pkgs,
  ...
}:
{
  options.sandbox = {
    initrd.modules = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      description = ''
        Kernel modules that the agent loads, each after those that it needs, and several names in one string in
        their order. What is built into the kernel is passed over; what it does not have at all fails the build.
      '';
    };
    initrd.optionalModules = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Those of them that a kernel may lack.";
    };
    guest = lib.mkOption {
      type = lib.types.attrsOf lib.types.anything;
      internal = true;
      description = "What the agent has to know besides the manifest: Guest of package image.";
    };
  };

  config.sandbox = {
    initrd.modules = [
      # The agent's channel and the console, on q35's and microvm's PCIe and on microvm's own bus.
      "virtio_pci"
      "virtio_mmio"
      "virtio_console"
      # The store, and the writable layer over it, in memory or on a disk.
      "virtio_blk"
      "crc32c_intel erofs" # together: the checksum that erofs finds when it is loaded is the one that it uses
      "overlay"
      "ext4"
      # Home and shares.
      "fuse"
      "virtiofs"
      # The network, and DHCP on it.
      "virtio_net"
      "af_packet"
      # The agent's channel where the host has vsock.
      "vmw_vsock_virtio_transport"
      "virtio_rng"
      # Loaded when commands can run: memory for the host, and word of a panic.
      "virtio_balloon"
      "pvpanic-pci"
    ];
    initrd.optionalModules = [
      "crc32c_intel" # the processor's own checksum, which other architectures and newer kernels have elsewhere
      "pvpanic-pci"
    ];

    guest.prepare = "/sbin/prepare";
  };

  # The links are relative, because the agent follows them before this is the root.
  config.system.build.sandboxSbin = {
    init = "${config.systemd.package}/lib/systemd/systemd";
    prepare = config.system.build.sandboxPrepare;
    # For a sandbox's disk.
    "mkfs.ext4" = lib.getExe' pkgs.e2fsprogs "mkfs.ext4";
    e2fsck = lib.getExe' pkgs.e2fsprogs "e2fsck";
  };
}
