package stack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// guestTimeout is how long a guest has for answering a connection that somebody made to its published port.
const guestTimeout = 30 * time.Second

// Publish leads the connections that l accepts to a port of the guest's, until stop is called, which ends those that
// are open as well, or the network ends. The Network owns l. A connection that the guest takes neither
// at its address nor at its loopback is reset.
func (n *Network) Publish(l net.Listener, guestPort uint16) (stop func(), err error) {
	if guestPort == 0 {
		return nil, errors.New("a guest has no port 0")
	}
	ctx, cancel := context.WithCancel(n.ctx)
	context.AfterFunc(ctx, func() { l.Close() })
	go func() {
		defer cancel()
		for {
			c, err := l.Accept()
			if err != nil {
				if ctx.Err() == nil {
					n.config.Logger.Warn("a published port is closed", "address", l.Addr(), "err", err)
				}
				return
			}
			host, ok := c.(hostConn)
			if !ok {
				c.Close()
				n.config.Logger.Warn("a published port is closed, because its connections are not of package net", "address", l.Addr())
				return
			}
			if !n.place() {
				abort(host)
				continue
			}
			go func() {
				defer n.finished()
				n.toPort(ctx, host, guestPort)
			}()
		}
	}()
	return func() {
		cancel()
		l.Close()
	}, nil
}

// place takes the place of a connection, if there is one.
func (n *Network) place() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.tcp >= n.config.Connections {
		return false
	}
	n.tcp++
	return true
}

// toPort connects somebody's connection to the guest.
func (n *Network) toPort(ctx context.Context, host hostConn, port uint16) {
	var queue waiter.Queue
	ep, err := n.connectGuest(ctx, &queue, port)
	if errors.Is(err, syscall.ECONNREFUSED) {
		if err = n.toLoopback(ctx, host, port); err == nil {
			return
		}
	}
	if err != nil {
		n.config.Logger.Debug("the guest does not take a connection", "port", port, "err", err)
		abort(host)
		return
	}
	n.tune(ep)
	relay(ctx, ep, &queue, host, unchecked)
	end(ctx, ep, &queue)
}

func (n *Network) connectGuest(ctx context.Context, queue *waiter.Queue, port uint16) (tcpip.Endpoint, error) {
	ctx, cancel := context.WithTimeout(ctx, guestTimeout)
	defer cancel()
	if err := n.meet(ctx); err != nil {
		return nil, err
	}
	ep, terr := n.stack.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, queue)
	if terr != nil {
		return nil, errors.New(terr.String())
	}
	ep.SocketOptions().SetReceiveBufferSize(leastReceiveBuffer, true) // which tune lets grow
	entry, connected := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	queue.EventRegister(&entry)
	defer queue.EventUnregister(&entry)
	terr = ep.Bind(tcpip.FullAddress{NIC: nic, Addr: tcpipAddress(Gateway)})
	if terr == nil {
		terr = ep.Connect(tcpip.FullAddress{NIC: nic, Addr: tcpipAddress(Guest), Port: port})
	}
	if _, ok := terr.(*tcpip.ErrConnectStarted); ok {
		select {
		case <-connected:
			terr = ep.LastError()
		case <-ctx.Done():
			ep.Abort()
			return nil, context.Cause(ctx)
		}
	}
	if terr != nil {
		ep.Close()
		if _, ok := terr.(*tcpip.ErrConnectionRefused); ok {
			return nil, syscall.ECONNREFUSED
		}
		return nil, fmt.Errorf("cannot connect: %s", terr)
	}
	return ep, nil
}
