# The network. The agent takes an address by DHCP while systemd is still starting, keeps the lease, and writes
# /etc/resolv.conf and the host name down.
{ config, lib, ... }:
let
  nft = config.networking.nftables;
in
{
  networking = {
    # The host names the guest at each boot.
    hostName = lib.mkDefault "";
    # One network card, which the agent configures.
    useDHCP = false;
    dhcpcd.enable = false;
    resolvconf.enable = false;

    # The guest is behind QEMU's user networking: nobody reaches a port that the host does not forward, and the firewall
    # would make every -p a matter of two configurations.
    firewall.enable = lib.mkDefault false;
    # One program call instead of some fifty, for those who want a firewall.
    nftables.enable = lib.mkDefault true;
  };

  # It would run without a rule to load, too.
  systemd.services.nftables = lib.mkIf nft.enable {
    enable = lib.mkDefault (nft.tables != { } || nft.ruleset != "" || nft.rulesetFile != null);
  };

  # The agent sets the clock at the start and after each pause of the guest, from the host's.
  services.timesyncd.enable = false;
}
