package stack

import (
	"context"
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
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
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
	ident uint16
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
	h := header.ICMPv4(pkt.TransportHeader().Slice())
	a := netip.AddrPortFrom(destination(id).Addr(), 0)
	if len(h) < header.ICMPv4MinimumSize || h.Type() != header.ICMPv4Echo || ours(a.Addr()) {
		return false
	}
	name, v := n.judgePacket(a, policy.ICMP, pkt)
	if !v.Allow {
		return true
	}
	p, rule := n.ping(pingID{a.Addr(), h.Ident()}, pkt)
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
		case k >= header.ICMPv4MinimumSize && header.ICMPv4(message).Type() == header.ICMPv4EchoReply:
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
	route, err := n.stack.FindRoute(nic, tcpipAddress(id.addr), tcpipAddress(Guest), ipv4.ProtocolNumber, false)
	if err != nil {
		return
	}
	defer route.Release()
	pkt := netstack.NewPacketBuffer(netstack.PacketBufferOptions{
		ReserveHeaderBytes: int(route.MaxHeaderLength()) + header.ICMPv4MinimumSize,
		Payload:            buffer.MakeWithData(message[header.ICMPv4MinimumSize:]),
	})
	defer pkt.DecRef()
	h := header.ICMPv4(pkt.TransportHeader().Push(header.ICMPv4MinimumSize))
	copy(h, message)
	h.SetIdent(id.ident)
	h.SetChecksum(0)
	h.SetChecksum(header.ICMPv4Checksum(h, pkt.Data().Checksum()))
	pkt.TransportProtocolNumber = header.ICMPv4ProtocolNumber
	params := netstack.NetworkHeaderParams{Protocol: header.ICMPv4ProtocolNumber, TTL: tcpip.UseDefaultIPv4TTL}
	if err := route.WritePacket(params, pkt); err != nil {
		n.config.Logger.Debug("an echo reply could not be sent", "err", err)
	}
}

// dialPing makes a socket that pings one address, which Linux lets the groups in net.ipv4.ping_group_range do. The
// kernel puts a number of its own and the checksum into what is sent, and lets nothing but echo requests through.
func dialPing(a netip.Addr) (net.Conn, error) {
	if !a.Is4() {
		return nil, errors.New("only addresses of IPv4 can be pinged")
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMP)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "ping")
	defer f.Close()
	to := unix.SockaddrInet4{Addr: a.As4()}
	if err := unix.Connect(fd, &to); err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	return net.FileConn(f)
}
