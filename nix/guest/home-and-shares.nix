# The home and the shares. The agent mounts what the host announces, before systemd starts: nothing is listed here, and a
# sandbox with other shares needs no other image.
{
  # Directories in which users expect to find what they mount.
  systemd.tmpfiles.settings.sandbox."/mnt".d.mode = "0755";
}
