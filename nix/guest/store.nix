# The root: the read-only store below, what is written above it, in memory or on the sandbox's disk.
#
# The erofs holds a whole root and not only /nix/store, so that the overlay over it, which the agent mounts, makes the
# store writable as well as everything else, and a sandbox with a disk keeps both. It is the same arrangement as in the
# images of the Debian recipe.
{
  # What the agent has mounted. NixOS insists on hearing of a root.
  fileSystems."/" = {
    device = "overlay";
    fsType = "overlay";
  };

  # Trimming is done as it happens (the agent mounts the disk with discard).
  services.fstrim.enable = false;
  # No volume group is in the guest, and its udev rules are asked for every device.
  services.lvm.enable = false;
}
