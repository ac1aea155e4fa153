package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// PublishPacket leads the datagrams that c receives to a port of the guest's, and the guest's answers back to whom they
// are for, until stop is called or the network ends. The Network owns c. Each sender has a flow of its own, and they
// count among those that a guest may have.
func (n *Network) PublishPacket(c net.PacketConn, guestPort uint16) (stop func(), err error) {
	if guestPort == 0 {
		return nil, errors.New("a guest has no port 0")
	}
	ctx, cancel := context.WithCancel(n.ctx)
	context.AfterFunc(ctx, func() { c.Close() })
	p := &packetPort{network: n, ctx: ctx, conn: c, port: guestPort, flows: map[netip.AddrPort]*packetFlow{}}
	go func() {
		defer cancel()
		if err := p.serve(); ctx.Err() == nil {
			n.config.Logger.Warn("a published port is closed", "address", c.LocalAddr(), "err", err)
		}
	}()
	return func() {
		cancel()
		c.Close()
	}, nil
}

// packetPort is a published port.
type packetPort struct {
	network *Network
	ctx     context.Context
	conn    net.PacketConn
	port    uint16

	mu    sync.Mutex
	flows map[netip.AddrPort]*packetFlow // by sender
}

// packetFlow is what one sender has with the guest.
type packetFlow struct {
	ep     tcpip.Endpoint
	queue  waiter.Queue
	sender net.Addr
	last   atomic.Int64 // when either sent something, in nanoseconds of Unix time
}

func (p *packetPort) serve() error {
	b := make([]byte, header.UDPMaximumPacketSize)
	for {
		k, sender, err := p.conn.ReadFrom(b)
		if err != nil {
			return err
		}
		f, err := p.flow(sender)
		if err != nil {
			p.network.config.Logger.Debug("a datagram for the guest is lost", "port", p.port, "err", err)
			continue
		}
		f.last.Store(time.Now().UnixNano())
		_, _ = f.ep.Write(bytes.NewReader(b[:k]), tcpip.WriteOptions{})
	}
}

// flow returns the flow of a sender.
func (p *packetPort) flow(sender net.Addr) (*packetFlow, error) {
	from, ok := sender.(*net.UDPAddr)
	if !ok {
		return nil, fmt.Errorf("its sender %s has no UDP address", sender)
	}
	key := from.AddrPort()
	p.mu.Lock()
	defer p.mu.Unlock()
	if f, ok := p.flows[key]; ok {
		return f, nil
	}
	n := p.network
	if !n.addFlow() {
		return nil, errors.New("there are too many flows")
	}
	f := &packetFlow{sender: sender}
	if err := f.connect(n, p.port); err != nil {
		n.removeFlow()
		return nil, err
	}
	p.flows[key] = f
	go func() {
		defer n.removeFlow()
		p.answers(f)
		p.mu.Lock()
		delete(p.flows, key)
		p.mu.Unlock()
		f.ep.Close()
	}()
	return f, nil
}

func (f *packetFlow) connect(n *Network, port uint16) error {
	if _, current := n.knowsGuest(); !current {
		if err := n.askForGuest(); err != nil {
			return err
		}
	}
	ep, terr := n.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &f.queue)
	if terr != nil {
		return errors.New(terr.String())
	}
	terr = ep.Bind(tcpip.FullAddress{NIC: nic, Addr: tcpipAddress(Gateway)})
	if terr == nil {
		terr = ep.Connect(tcpip.FullAddress{NIC: nic, Addr: tcpipAddress(Guest), Port: port})
	}
	if terr != nil {
		ep.Close()
		return errors.New(terr.String())
	}
	ep.SocketOptions().SetReceiveBufferSize(flowBuffer, true)
	f.ep = ep
	f.last.Store(time.Now().UnixNano())
	return nil
}

// answers passes on what the guest sends, until neither has sent anything for a while.
func (p *packetPort) answers(f *packetFlow) {
	entry, readable := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	f.queue.EventRegister(&entry)
	defer f.queue.EventUnregister(&entry)
	idle := time.NewTicker(flowIdle)
	defer idle.Stop()
	for {
		if p.answer(f) {
			continue
		}
		select {
		case <-readable:
		case <-idle.C:
			if time.Since(time.Unix(0, f.last.Load())) >= flowIdle {
				return
			}
		case <-p.ctx.Done():
			return
		}
	}
}

// answer passes one datagram on, if there is one.
func (p *packetPort) answer(f *packetFlow) bool {
	b := datagrams.Get().(*[header.UDPMaximumPacketSize]byte)
	defer datagrams.Put(b)
	w := tcpip.SliceWriter(b[:])
	result, terr := f.ep.Read(&w, tcpip.ReadOptions{})
	if terr != nil {
		return false // nothing yet, or the guest has no such port: which is as UDP has it
	}
	f.last.Store(time.Now().UnixNano())
	_, _ = p.conn.WriteTo(b[:result.Count], f.sender)
	return true
}
