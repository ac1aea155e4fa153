package stack

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

func dhcpMessage(modifiers ...dhcpv4.Modifier) []byte {
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(net.HardwareAddr(guestMAC))}, modifiers...)...)
	if err != nil {
		panic(err)
	}
	return m.ToBytes()
}

func discover() []byte { return dhcpMessage(dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover)) }

func TestLease(t *testing.T) {
	l := newBareLab(t, func(c *Config) {
		c.Search, c.HostName = []string{"corp.example", "example.com"}, "box"
	})
	exchange := func(message []byte) *dhcpv4.DHCPv4 {
		t.Helper()
		p := udpDatagram(netip.AddrPortFrom(netip.IPv4Unspecified(), 68), netip.AddrPortFrom(broadcast, 67), message)
		l.send(ethernet(broadcastMAC, guestMAC, header.IPv4ProtocolNumber, p))
		f := l.receive()
		u := header.UDP(header.IPv4(f[header.EthernetMinimumSize:]).Payload())
		m, err := dhcpv4.FromBytes(u.Payload())
		if err != nil || u.DestinationPort() != 68 {
			t.Fatalf("the answer is %x, %v", f, err)
		}
		return m
	}
	offer := exchange(discover())
	if offer.MessageType() != dhcpv4.MessageTypeOffer || !offer.YourIPAddr.Equal(Guest.AsSlice()) {
		t.Errorf("the offer is %s", offer.Summary())
	}
	ack := exchange(dhcpMessage(dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(offer.ServerIdentifier())), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr))))
	mtu, _ := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, ack.Options)
	if ack.MessageType() != dhcpv4.MessageTypeAck || !ack.YourIPAddr.Equal(Guest.AsSlice()) ||
		len(ack.Router()) != 1 || !ack.Router()[0].Equal(Gateway.AsSlice()) || len(ack.DNS()) != 1 || !ack.DNS()[0].Equal(DNS.AsSlice()) ||
		mtu != MaxMTU || ack.SubnetMask().String() != "ffffff00" || ack.IPAddressLeaseTime(0) < 24*time.Hour ||
		ack.HostName() != "box" || len(ack.DomainSearch().Labels) != 2 || ack.DomainSearch().Labels[0] != "corp.example" {
		t.Errorf("the lease is %s", ack.Summary())
	}
	nak := exchange(dhcpMessage(dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 0, 2, 16)))))
	if nak.MessageType() != dhcpv4.MessageTypeNak {
		t.Errorf("the wish for another address is answered by %s", nak.Summary())
	}
	renewed := exchange(dhcpMessage(dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(Guest.AsSlice())))
	if renewed.MessageType() != dhcpv4.MessageTypeAck {
		t.Errorf("the renewal is answered by %s", renewed.Summary())
	}
	if events, _ := l.seen(); len(events) > 0 {
		t.Errorf("the log has %+v", events)
	}
}

func FuzzDHCP(f *testing.F) {
	f.Add(discover())
	f.Add(dhcpMessage(dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(Guest.AsSlice())))
	n := &Network{config: Config{MTU: MaxMTU, Search: []string{"corp.example"}, HostName: "box"}}
	f.Fuzz(func(t *testing.T, b []byte) {
		answer := n.answerDHCP(b)
		if answer == nil {
			return
		}
		m, err := dhcpv4.FromBytes(answer)
		if err != nil {
			t.Fatalf("the answer %x is no message: %v", answer, err)
		}
		if a, _ := netip.AddrFromSlice(m.YourIPAddr.To4()); m.MessageType() == dhcpv4.MessageTypeOffer && a != Guest {
			t.Errorf("the address %s is offered", a)
		}
	})
}
