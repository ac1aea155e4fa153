package stack

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/rfc1035label"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// lease is how long the guest may keep its address, which nobody else can get.
const lease = 365 * 24 * time.Hour

// maxDHCP is what a message has at most, in bytes: a client that can take more has to say so, and ours need not.
const maxDHCP = 1500

func (n *Network) serveDHCP() error {
	var queue waiter.Queue
	ep, terr := n.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &queue)
	if terr != nil {
		return errors.New(terr.String())
	}
	ep.SocketOptions().SetBroadcast(true)
	if terr := ep.Bind(tcpip.FullAddress{NIC: nic, Port: dhcpServerPort}); terr != nil {
		ep.Close()
		return errors.New(terr.String())
	}
	conn := gonet.NewUDPConn(&queue, ep)
	go func() {
		defer conn.Close()
		message := make([]byte, maxDHCP)
		for {
			k, _, err := conn.ReadFrom(message)
			if err != nil {
				return
			}
			if answer := n.answerDHCP(message[:k]); answer != nil {
				// To all, because the client has no address yet.
				_, _ = conn.WriteTo(answer, &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort})
			}
		}
	}()
	return nil
}

// answerDHCP returns the answer to a message, or nil.
func (n *Network) answerDHCP(message []byte) []byte {
	request, err := dhcpv4.FromBytes(message)
	if err != nil || request.OpCode != dhcpv4.OpcodeBootRequest {
		return nil
	}
	kind := dhcpv4.MessageTypeAck
	switch request.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		kind = dhcpv4.MessageTypeOffer
	case dhcpv4.MessageTypeRequest:
		if server := request.ServerIdentifier(); server != nil && !server.Equal(Gateway.AsSlice()) {
			return nil // the offer of another server was taken
		}
		if wanted := wantedAddress(request); wanted != Guest && !wanted.IsUnspecified() {
			kind = dhcpv4.MessageTypeNak
		}
	case dhcpv4.MessageTypeInform:
	default:
		return nil
	}
	modifiers := []dhcpv4.Modifier{
		dhcpv4.WithMessageType(kind),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(Gateway.AsSlice())),
	}
	if kind != dhcpv4.MessageTypeNak {
		modifiers = append(modifiers, n.options(request)...)
	}
	answer, err := dhcpv4.NewReplyFromRequest(request, modifiers...)
	if err != nil {
		return nil
	}
	return answer.ToBytes()
}

// options are what a guest is told about its network.
func (n *Network) options(request *dhcpv4.DHCPv4) []dhcpv4.Modifier {
	options := []dhcpv4.Modifier{
		dhcpv4.WithServerIP(Gateway.AsSlice()),
		dhcpv4.WithNetmask(net.CIDRMask(prefixLength, 32)),
		dhcpv4.WithRouter(Gateway.AsSlice()),
		dhcpv4.WithDNS(DNS.AsSlice()),
		dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, binary.BigEndian.AppendUint16(nil, uint16(n.config.MTU))),
	}
	if request.MessageType() != dhcpv4.MessageTypeInform { // whose client has an address (RFC 2131, section 4.3.5)
		options = append(options, dhcpv4.WithYourIP(Guest.AsSlice()), dhcpv4.WithLeaseTime(uint32(lease/time.Second)))
	}
	if n.config.HostName != "" {
		options = append(options, dhcpv4.WithOption(dhcpv4.OptHostName(n.config.HostName)))
	}
	if len(n.config.Search) > 0 {
		options = append(options, dhcpv4.WithOption(dhcpv4.OptDomainSearch(&rfc1035label.Labels{Labels: n.config.Search})))
	}
	return options
}

// wantedAddress is the address that a client asks to use.
func wantedAddress(request *dhcpv4.DHCPv4) netip.Addr {
	ip := request.RequestedIPAddress()
	if ip == nil {
		ip = request.ClientIPAddr
	}
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.IPv4Unspecified()
	}
	return a.Unmap()
}
