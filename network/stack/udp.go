package stack

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sourcery-zone/sandbox/network/policy"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	// maxFlows bounds the pairs of ports between which datagrams go.
	maxFlows = 1024
	// flowIdle and lookupIdle are how long a flow stays that nobody uses; a lookup has one answer.
	flowIdle   = time.Minute
	lookupIdle = 10 * time.Second
	// flowBuffer is what a flow has in each direction, in bytes.
	flowBuffer = 128 << 10
)

// handleUDP takes datagrams of no flow yet. What it does not handle is answered by "port unreachable".
func (n *Network) handleUDP(id netstack.TransportEndpointID, pkt *netstack.PacketBuffer) bool {
	if pkt.NetworkProtocolNumber == header.IPv4ProtocolNumber && id.RemoteAddress != tcpipAddress(Guest) {
		return true // the DHCP server's own answers, which go to all
	}
	a := destination(id)
	if ours(a.Addr()) {
		n.refused(policy.UDP, a, "", RuleGateway)
		return false
	}
	name, v := n.judgePacket(a, policy.UDP, pkt)
	if !v.Allow {
		return true
	}
	if !n.addFlow() {
		n.refused(policy.UDP, a, name, RuleLimit)
		return false
	}
	h, release := n.hold(held{proto: policy.UDP, name: name, addr: a})
	end := func() {
		release()
		n.removeFlow()
	}
	f := &flow{
		network: n, held: h, queue: new(waiter.Queue), idle: flowIdle,
		event: Event{Proto: string(policy.UDP), Name: name, Addr: a, Allowed: true, Rule: v.Rule}, began: time.Now(),
	}
	if a.Port() == 53 {
		f.idle = lookupIdle
	}
	if name == "" { // for which nothing is waited
		if err := f.dial(); err != nil {
			end()
			n.event(f.event, f.began)
			answer, ok := rejection(err)
			if ok {
				n.reject(pkt, answer)
			}
			return ok
		}
	}
	var terr tcpip.Error
	if f.ep, terr = udp.NewForwarderRequest(n.stack, id, pkt).CreateEndpoint(f.queue); terr != nil {
		if f.host != nil {
			f.host.Close()
		}
		end()
		return false
	}
	f.first = head(pkt)
	f.ep.SocketOptions().SetReceiveBufferSize(flowBuffer, true)
	go func() {
		defer end()
		defer n.table.hold(a.Addr())()
		defer f.first.DecRef()
		if f.host == nil {
			if err := f.dial(); err != nil {
				if answer, ok := rejection(err); ok {
					n.reject(f.first, answer)
				}
				f.ep.Close()
				n.event(f.event, f.began)
				return
			}
		}
		f.event.Sent, f.event.Received = f.run()
		if closed := h.closed(); closed != nil {
			f.event.Allowed, f.event.Rule = false, closed.Rule
		}
		n.event(f.event, f.began)
	}()
	return true
}

func (n *Network) addFlow() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.udp >= maxFlows || n.ctx.Err() != nil {
		return false
	}
	n.udp++
	return true
}

func (n *Network) removeFlow() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.udp--
}

// head copies what an ICMP error says of a packet: its headers.
func head(pkt *netstack.PacketBuffer) *netstack.PacketBuffer {
	ip, transport := pkt.NetworkHeader().Slice(), pkt.TransportHeader().Slice()
	h := netstack.NewPacketBuffer(netstack.PacketBufferOptions{ReserveHeaderBytes: len(ip) + len(transport)})
	copy(h.TransportHeader().Push(len(transport)), transport)
	copy(h.NetworkHeader().Push(len(ip)), ip)
	h.NetworkProtocolNumber, h.TransportProtocolNumber = pkt.NetworkProtocolNumber, pkt.TransportProtocolNumber
	h.NICID = pkt.NICID
	return h
}

type packetConn interface {
	Read([]byte) (int, error)
	Write([]byte) (int, error)
	SetReadDeadline(time.Time) error
	Close() error
	syscall.Conn
}

// flow carries datagrams between a port of the guest's and one of another host.
type flow struct {
	network *Network
	held    *held
	host    packetConn
	ep      tcpip.Endpoint
	queue   *waiter.Queue
	first   *netstack.PacketBuffer // the head of the first datagram
	event   Event
	began   time.Time
	idle    time.Duration
	last    atomic.Int64 // when the guest sent something, in nanoseconds of Unix time
}

// datagrams are buffers of the longest datagram, which flows have only while they move one.
var datagrams = sync.Pool{New: func() any { return new([header.UDPMaximumPacketSize]byte) }}

// dial makes the host's socket. An error is noted in the event.
func (f *flow) dial() error {
	c, err := f.network.dial(f.held.ctx, f.held)
	if closed, ok := errors.AsType[*ClosedError](err); ok {
		f.event.Allowed, f.event.Rule = false, closed.Rule
	}
	if err != nil {
		return err
	}
	var ok bool
	if f.host, ok = c.(packetConn); !ok {
		c.Close()
		return errors.New("a connection that was dialled is not of package net")
	}
	return nil
}

func (f *flow) run() (sent, received int64) {
	f.last.Store(time.Now().UnixNano())
	var guest sync.WaitGroup
	guest.Go(func() { sent = f.fromGuest() })
	received = f.toGuest()
	f.ep.Close()
	f.host.Close()
	guest.Wait()
	return sent, received
}

// fromGuest ends when the endpoint does.
func (f *flow) fromGuest() (total int64) {
	entry, readable := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	f.queue.EventRegister(&entry)
	defer f.queue.EventUnregister(&entry)
	for {
		n, terr := f.forward()
		total += n
		switch {
		case terr == nil:
		case isWouldBlock(terr):
			select {
			case <-readable:
			case <-f.held.ctx.Done():
				return total
			}
		default:
			return total
		}
	}
}

func (f *flow) forward() (int64, tcpip.Error) {
	b := datagrams.Get().(*[header.UDPMaximumPacketSize]byte)
	defer datagrams.Put(b)
	w := tcpip.SliceWriter(b[:])
	result, terr := f.ep.Read(&w, tcpip.ReadOptions{})
	if terr != nil {
		return 0, terr
	}
	f.last.Store(time.Now().UnixNano())
	if _, err := f.host.Write(b[:result.Count]); errors.Is(err, unix.ECONNREFUSED) {
		f.network.reject(f.first, netstack.RejectIPv4WithICMPPortUnreachable)
	}
	return int64(result.Count), nil
}

// toGuest ends when nobody has sent anything for a while, or the network ends.
func (f *flow) toGuest() (total int64) {
	stop := context.AfterFunc(f.held.ctx, func() { _ = f.host.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := f.host.SyscallConn()
	if err != nil {
		return 0
	}
	for {
		if f.host.SetReadDeadline(time.Now().Add(f.idle)) != nil || f.held.ctx.Err() != nil {
			return total
		}
		var n int
		var rerr error
		err := conn.Read(func(fd uintptr) bool {
			b := datagrams.Get().(*[header.UDPMaximumPacketSize]byte)
			defer datagrams.Put(b)
			if n, rerr = unix.Read(int(fd), b[:]); rerr != nil {
				return rerr != unix.EAGAIN && rerr != unix.EINTR
			}
			_, _ = f.ep.Write(bytes.NewReader(b[:n]), tcpip.WriteOptions{})
			return true
		})
		switch {
		case err != nil:
			if time.Since(time.Unix(0, f.last.Load())) >= f.idle {
				return total
			}
		case errors.Is(rerr, unix.ECONNREFUSED):
			f.network.reject(f.first, netstack.RejectIPv4WithICMPPortUnreachable)
		case rerr == nil:
			total += int64(n)
		}
	}
}
