package stack

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/sourcery-zone/sandbox/network/policy"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// maxPings bounds the programs that ping at once, and pingIdle is when one has ended.
	maxPings = 64
	pingIdle = 10 * time.Second
)

// pingID is one program that pings one address.
type pingID struct {
	addr  netip.Addr
	guest tcpip.Address
	ident uint16
}

// Echo requests and replies have the same form in ICMP and ICMPv6, but for their types.
const (
	echoSize    = header.ICMPv4MinimumSize
	echoIDStart = 4 // where the number of the program is
)

// echoTypes are the types of echo requests and replies to an address.
func echoTypes(a netip.Addr) (request, reply byte) {
	if a.Is4() {
		return byte(header.ICMPv4Echo), byte(header.ICMPv4EchoReply)
	}
	return byte(header.ICMPv6EchoRequest), byte(header.ICMPv6EchoReply)
}

// ping passes echo requests to a socket of the host's, and its replies back.
type ping struct {
	network *Network
	id      pingID
	host    net.Conn
	first   *netstack.PacketBuffer // the head of the first request
	last    atomic.Int64           // when the guest sent one, in nanoseconds of Unix time
	sent    atomic.Int64
}

// handleICMP takes echo requests. The stack answers those for the network's own addresses, and nobody those for others
// but these others.
func (n *Network) handleICMP(id netstack.TransportEndpointID, pkt *netstack.PacketBuffer) bool {
	h := pkt.TransportHeader().Slice()
	a := netip.AddrPortFrom(destination(id).Addr(), 0)
	if request, _ := echoTypes(a.Addr()); len(h) < echoSize || h[0] != request || ours(a.Addr()) {
		return false
	}
	name, v := n.judgePacket(a, policy.ICMP, pkt)
	if !v.Allow {
		return true
	}
	p, rule := n.ping(pingID{a.Addr(), id.RemoteAddress, binary.BigEndian.Uint16(h[echoIDStart:])}, pkt)
	if p == nil {
		n.refused(policy.ICMP, a, name, rule)
		n.reject(pkt, netstack.RejectIPv4WithICMPAdminProhibited)
		return true
	}
	p.last.Store(time.Now().UnixNano())
	message := append(append([]byte(nil), h...), pkt.Data().AsRange().ToSlice()...)
	if k, err := p.host.Write(message); err != nil {
		p.failed(err)
	} else {
		p.sent.Add(int64(k))
	}
	return true
}

// ping returns the ping that a request belongs to, or why there is none.
func (n *Network) ping(id pingID, request *netstack.PacketBuffer) (*ping, string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p, ok := n.pings[id]; ok {
		return p, ""
	}
	if len(n.pings) >= maxPings || n.ctx.Err() != nil {
		return nil, RuleLimit
	}
	host, err := n.dialAddress(n.ctx, policy.ICMP, netip.AddrPortFrom(id.addr, 0), nil) // which sends nothing
	if closed, ok := errors.AsType[*ClosedError](err); ok {
		return nil, closed.Rule
	}
	if err != nil {
		n.config.Logger.Debug("the host cannot ping for the guest", "address", id.addr, "err", err)
		return nil, RuleHostCannot
	}
	p := &ping{network: n, id: id, host: host, first: head(request)}
	n.pings[id] = p
	go p.run()
	return p, ""
}

func (p *ping) run() {
	n := p.network
	e, began := Event{Proto: string(policy.ICMP), Addr: netip.AddrPortFrom(p.id.addr, 0), Allowed: true, Rule: policy.RulePublic}, time.Now()
	e.Received = p.replies()
	e.Sent = p.sent.Load()
	n.mu.Lock()
	delete(n.pings, p.id)
	n.mu.Unlock()
	p.host.Close()
	n.event(e, began)
}

// replies passes on what comes back, until the guest has not pinged for a while or the network ends.
func (p *ping) replies() (total int64) {
	stop := context.AfterFunc(p.network.ctx, func() { p.host.Close() })
	defer stop()
	message := make([]byte, 2048) // more than people ping with; longer ones are lost
	_, reply := echoTypes(p.id.addr)
	for {
		if p.host.SetReadDeadline(time.Now().Add(pingIdle)) != nil {
			return total
		}
		k, err := p.host.Read(message)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if time.Since(time.Unix(0, p.last.Load())) >= pingIdle {
				return total
			}
		case errors.Is(err, net.ErrClosed):
			return total
		case err != nil:
			p.failed(err)
		case k >= echoSize && message[0] == reply:
			total += int64(k)
			p.network.echo(p.id, message[:k])
		}
	}
}

// failed tells the guest what a router told the host.
func (p *ping) failed(err error) {
	if answer, ok := rejection(err); ok {
		p.network.reject(p.first, answer)
	}
}

// echo sends a reply to the guest, under the number that the guest's program has.
func (n *Network) echo(id pingID, message []byte) {
	protocol := protocolOf(id.addr)
	route, err := n.stack.FindRoute(nic, tcpipAddress(id.addr), id.guest, protocol, false)
	if err != nil {
		return
	}
	defer route.Release()
	pkt := netstack.NewPacketBuffer(netstack.PacketBufferOptions{
		ReserveHeaderBytes: int(route.MaxHeaderLength()) + echoSize,
		Payload:            buffer.MakeWithData(message[echoSize:]),
	})
	defer pkt.DecRef()
	h := pkt.TransportHeader().Push(echoSize)
	copy(h, message)
	binary.BigEndian.PutUint16(h[echoIDStart:], id.ident)
	pkt.TransportProtocolNumber = header.ICMPv4ProtocolNumber
	if protocol == ipv6.ProtocolNumber {
		pkt.TransportProtocolNumber = header.ICMPv6ProtocolNumber
		header.ICMPv6(h).SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{
			Header: h, Src: route.LocalAddress(), Dst: route.RemoteAddress(), PayloadCsum: pkt.Data().Checksum(), PayloadLen: pkt.Data().Size(),
		}))
	} else {
		header.ICMPv4(h).SetChecksum(0)
		header.ICMPv4(h).SetChecksum(header.ICMPv4Checksum(h, pkt.Data().Checksum()))
	}
	params := netstack.NetworkHeaderParams{Protocol: pkt.TransportProtocolNumber, TTL: route.DefaultTTL()}
	if err := route.WritePacket(params, pkt); err != nil {
		n.config.Logger.Debug("an echo reply could not be sent", "err", err)
	}
}

// dialPing makes a socket that pings one address, which Linux lets the groups in net.ipv4.ping_group_range do. The
// kernel puts a number of its own and the checksum into what is sent, and lets nothing but echo requests through.
func dialPing(a netip.Addr) (net.Conn, error) {
	family, protocol, to := unix.AF_INET6, unix.IPPROTO_ICMPV6, unix.Sockaddr(&unix.SockaddrInet6{Addr: a.As16()})
	if a.Is4() {
		family, protocol, to = unix.AF_INET, unix.IPPROTO_ICMP, &unix.SockaddrInet4{Addr: a.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "ping")
	defer f.Close()
	if err := unix.Connect(fd, to); err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	return net.FileConn(f)
}
