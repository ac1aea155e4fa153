//go:build linux

package guest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/sourcery-zone/sandbox/agent"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// dhcpTry is the first wait for an answer; each further one is twice as
	// long. The server is a part of QEMU and answers at once, but the first
	// packets can be lost while the link comes up.
	dhcpTry   = 250 * time.Millisecond
	dhcpTries = 6

	// dhcpPause is the pause after a round of tries without an answer.
	dhcpPause = 5 * time.Second

	// renewMin keeps a server with absurdly short leases from being flooded.
	renewMin = 10 * time.Second
)

// network keeps the guest's first network card configured by DHCP. The image
// has no other network daemon.
type network struct {
	progress *progress
	logger   *slog.Logger
	// rooted is closed when /etc is that of the new root.
	rooted <-chan struct{}
}

// run brings the loopback up, and then the first network card, if there is
// one, until ctx ends. It closes settled when the card has its first lease, or
// when there is none to wait for.
func (n *network) run(ctx context.Context, settled chan<- struct{}) {
	link, err := n.links()
	if err != nil {
		n.problem(err)
	}
	if link == nil {
		close(settled)
		return
	}
	for {
		lease, err := n.acquire(ctx, link)
		if err == nil {
			if settled != nil {
				n.progress.reach(agent.StageNetwork)
				close(settled)
				settled = nil
			}
			err = n.keep(ctx, link, lease)
		}
		if ctx.Err() != nil {
			return
		}
		n.problem(err)
		select {
		case <-time.After(dhcpPause):
		case <-ctx.Done():
			return
		}
	}
}

func (n *network) problem(err error) {
	n.logger.Warn("the network is not up", "err", err)
	n.progress.update(func(s *agent.Status) {
		s.Network.Up = false
		s.Network.Problem = err.Error()
	})
}

// nameCard gives the first network card another hardware address, which the kernel announces: the network may know that of
// before, at which the card hears nothing any more.
func nameCard(address net.HardwareAddr) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("cannot list the network interfaces: %w", err)
	}
	i := slices.IndexFunc(links, isCard)
	if i < 0 {
		return nil
	}
	name := links[i].Attrs().Name
	err = os.WriteFile(filepath.Join("/proc/sys/net/ipv4/conf", name, "arp_notify"), []byte("1"), 0)
	if err = errors.Join(err, netlink.LinkSetHardwareAddr(links[i], address)); err != nil {
		return fmt.Errorf("cannot give the network interface %s the address %s: %w", name, address, err)
	}
	return nil
}

func isCard(link netlink.Link) bool {
	return link.Attrs().Flags&net.FlagLoopback == 0 && link.Attrs().EncapType == "ether"
}

// links brings up the loopback and the first network card, and returns the
// latter; nil without an error means that there is none.
func (n *network) links() (netlink.Link, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("cannot list the network interfaces: %w", err)
	}
	var card netlink.Link
	for _, link := range links {
		attrs := link.Attrs()
		loopback := attrs.Flags&net.FlagLoopback != 0
		if !loopback && (card != nil || !isCard(link)) {
			continue
		}
		if !loopback {
			n.believeRouters(attrs.Name)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return nil, fmt.Errorf("cannot bring up the network interface %s: %w", attrs.Name, err)
		}
		if !loopback {
			card = link
		}
	}
	return card, nil
}

// believeRouters has the kernel take addresses and routes of IPv6 from what routers advertise on a link, also when the guest
// forwards packets, as it does for containers.
func (n *network) believeRouters(link string) {
	err := os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", link, "accept_ra"), []byte("2"), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) { // a kernel without IPv6
		n.logger.Warn("the kernel may forget the router of IPv6", "interface", link, "err", err)
	}
}

// acquire gets a lease and applies it.
func (n *network) acquire(ctx context.Context, link netlink.Link) (*nclient4.Lease, error) {
	var lease *nclient4.Lease
	err := withClient(link, func(client *nclient4.Client) (err error) {
		lease, err = client.Request(ctx, dhcpv4.WithRequestedOptions(dhcpv4.OptionInterfaceMTU))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("no answer from the DHCP server: %w", err)
	}
	return lease, n.apply(ctx, link, lease.ACK)
}

// withClient makes a DHCP client for the link. Its name is looked up each
// time, because udev gives it another one.
func withClient(link netlink.Link, use func(*nclient4.Client) error) error {
	current, err := netlink.LinkByIndex(link.Attrs().Index)
	if err != nil {
		return fmt.Errorf("the network interface is gone: %w", err)
	}
	client, err := nclient4.New(current.Attrs().Name, nclient4.WithTimeout(dhcpTry), nclient4.WithRetry(dhcpTries))
	if err != nil {
		return err
	}
	defer client.Close()
	return use(client)
}

// keep renews the lease until it cannot be, and returns why.
func (n *network) keep(ctx context.Context, link netlink.Link, lease *nclient4.Lease) error {
	for {
		select {
		case <-time.After(renewAfter(lease.ACK)):
		case <-ctx.Done():
			return ctx.Err()
		}
		err := withClient(link, func(client *nclient4.Client) (err error) {
			lease, err = client.Renew(ctx, lease)
			return err
		})
		if err != nil {
			return fmt.Errorf("cannot renew the DHCP lease: %w", err)
		}
		if err := n.apply(ctx, link, lease.ACK); err != nil {
			return err
		}
	}
}

// renewAfter is T1 of RFC 2131 section 4.4.5: half of the lease, unless the
// server says otherwise.
func renewAfter(ack *dhcpv4.DHCPv4) time.Duration {
	lease := ack.IPAddressLeaseTime(time.Hour)
	return max(ack.IPAddressRenewalTime(lease/2), renewMin)
}

// apply gives the link what the server has granted.
func (n *network) apply(ctx context.Context, link netlink.Link, ack *dhcpv4.DHCPv4) error {
	address := &net.IPNet{IP: ack.YourIPAddr, Mask: ack.SubnetMask()}
	if address.Mask == nil {
		address.Mask = ack.YourIPAddr.DefaultMask()
	}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: address}); err != nil {
		return fmt.Errorf("cannot set the address %s: %w", address, err)
	}
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, ack.Options); err == nil {
		if err := netlink.LinkSetMTU(link, int(mtu)); err != nil {
			n.logger.Warn("the MTU that the DHCP server names cannot be set", "mtu", mtu, "err", err)
		}
	}
	if routers := ack.Router(); len(routers) > 0 {
		err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: routers[0]})
		if err != nil {
			return fmt.Errorf("cannot set the default route over %s: %w", routers[0], err)
		}
	}
	select {
	case <-n.rooted:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := replaceFile("/etc/resolv.conf", resolvConf(ack), 0o644); err != nil {
		return fmt.Errorf("cannot write the name servers down: %w", err)
	}
	n.progress.update(func(s *agent.Status) {
		s.Network = agent.Network{Up: true, Interface: link.Attrs().Name, Address: address.String()}
	})
	return nil
}

// resolvConf is the text of resolv.conf(5) for a lease.
func resolvConf(ack *dhcpv4.DHCPv4) string {
	var text strings.Builder
	text.WriteString("# from DHCP, by sandbox-agent\n")
	for _, server := range ack.DNS() {
		fmt.Fprintf(&text, "nameserver %s\n", server)
	}
	var search []string
	if labels := ack.DomainSearch(); labels != nil {
		search = labels.Labels
	} else if name := ack.DomainName(); name != "" {
		search = []string{name}
	}
	if len(search) > 0 {
		fmt.Fprintf(&text, "search %s\n", strings.Join(search, " "))
	}
	return text.String()
}

// endConnections ends the guest's TCP connections to others. A guest that was restored
// has them from before, and nobody is at their other ends: a program that only waits
// for an answer would never hear of that. Those that are being made are asked for again.
func endConnections() error {
	var errs []error
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		sockets, err := netlink.SocketDiagTCP(family)
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot list the connections from before: %w", err))
			continue
		}
		for _, s := range sockets {
			if s.ID.DestinationPort == 0 || s.ID.Destination.IsLoopback() || s.State == netlink.TCP_SYN_SENT { // it listens, is the guest's own, or is being made
				continue
			}
			if err := endConnection(s); err != nil && !errors.Is(err, unix.ENOENT) { // it has ended by itself
				errs = append(errs, fmt.Errorf("cannot end the connection to %s from before: %w", s.ID.Destination, err))
			}
		}
	}
	return errors.Join(errs...)
}

func endConnection(s *netlink.Socket) error {
	request := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	request.AddData(destroyRequest{s})
	_, err := request.Execute(unix.NETLINK_INET_DIAG, 0)
	return err
}

// destroyRequest is a message of sock_diag(7), inet_diag_req_v2, about one socket.
type destroyRequest struct{ *netlink.Socket }

func (r destroyRequest) Len() int { return diagRequestSize }

func (r destroyRequest) Serialize() []byte {
	b := make([]byte, diagRequestSize)
	b[0], b[1] = r.Family, unix.IPPROTO_TCP
	binary.BigEndian.PutUint16(b[8:], r.ID.SourcePort)
	binary.BigEndian.PutUint16(b[10:], r.ID.DestinationPort)
	source, destination := r.ID.Source.To16(), r.ID.Destination.To16()
	if r.Family == unix.AF_INET {
		source, destination = r.ID.Source.To4(), r.ID.Destination.To4()
	}
	copy(b[12:28], source)
	copy(b[28:44], destination)
	binary.NativeEndian.PutUint32(b[44:], r.ID.Interface)
	binary.NativeEndian.PutUint32(b[48:], r.ID.Cookie[0])
	binary.NativeEndian.PutUint32(b[52:], r.ID.Cookie[1])
	return b
}
