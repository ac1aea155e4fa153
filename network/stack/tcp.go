package stack

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/sourcery-zone/sandbox/network/policy"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// handleTCP takes segments that belong to no connection. What it does not handle is answered by a reset, which is
// what a connection of a network before this one gets for its next segment.
func (n *Network) handleTCP(id netstack.TransportEndpointID, pkt *netstack.PacketBuffer, forwarder *tcp.Forwarder) bool {
	h := header.TCP(pkt.TransportHeader().Slice())
	if len(h) < header.TCPMinimumSize || h.Flags()&(header.TCPFlagSyn|header.TCPFlagAck) != header.TCPFlagSyn {
		return false
	}
	a := destination(id)
	var wanted attempt
	switch {
	case a == dnsAddress:
		wanted.here = true
	case a == policyPage:
		wanted.rule, wanted.here = RulePolicyPage, true
	case ours(a.Addr()) && !n.config.opensHost(a, policy.TCP):
		n.refused(policy.TCP, a, "", RuleGateway)
		return false
	default:
		var v policy.Verdict
		if wanted.name, v = n.judge(a, policy.TCP); !v.Allow {
			if n.config.Ask != nil {
				wanted.ask = n.rules.Load().asks(wanted.name, a, policy.TCP)
			}
			if wanted.ask == nil && !explained(a, v.Rule) {
				n.refuse(a, policy.TCP, pkt, wanted.name, v.Rule)
				return true
			}
		}
		wanted.rule, wanted.here, wanted.requests = v.Rule, !v.Allow && wanted.ask == nil, v.Requests || n.rules.Load().read.has(wanted.name, a.Port())
	}
	n.mu.Lock()
	if _, ok := n.dialing[id]; ok {
		n.mu.Unlock()
		return true // sent again, as the host that is dialled takes its time
	}
	if n.tcp >= n.config.Connections {
		n.mu.Unlock()
		n.refused(policy.TCP, a, wanted.name, RuleLimit)
		return false
	}
	n.tcp++
	wanted.syn = pkt.Clone()
	n.dialing[id] = wanted
	n.mu.Unlock()
	if !forwarder.HandlePacket(id, pkt) {
		n.dialed(id).syn.DecRef()
		n.finished()
		return false
	}
	return true
}

// attempt is a connection that the guest wants, while the host is dialled.
type attempt struct {
	syn      *netstack.PacketBuffer
	name     string       // that the address stands for, if it does
	rule     string       // that opens it, or closes it
	here     bool         // it is answered by this process, and nobody is dialled
	ask      *policy.Rule // that would open it, if the user is to be asked
	requests bool         // of HTTP are read, one by one
}

// attempt returns the one of that ID.
func (n *Network) attempt(id netstack.TransportEndpointID) attempt {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dialing[id]
}

// dialed ends an attempt.
func (n *Network) dialed(id netstack.TransportEndpointID) attempt {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := n.dialing[id]
	delete(n.dialing, id)
	return a
}

// finished frees a connection's place.
func (n *Network) finished() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tcp--
}

// connect dials the host for the guest, and only then answers the guest, so that what the host says is what the guest
// sees.
func (n *Network) connect(r *tcp.ForwarderRequest) {
	defer n.finished()
	id := r.ID()
	wanted := n.attempt(id)
	if destination(id) == dnsAddress {
		n.answerDNSConn(r, wanted) // of which each question is an event
		return
	}
	var queue waiter.Queue
	var ep tcpip.Endpoint
	defer func() {
		if ep != nil {
			end(n.ctx, ep, &queue)
		}
	}()
	e, began := Event{Proto: string(policy.TCP), Name: wanted.name, Addr: destination(id), Allowed: !wanted.here, Rule: wanted.rule}, time.Now()
	defer func() { n.event(e, began) }() // before the guest has ended it, which may take a minute
	if wanted.here {
		e.Allowed = e.Addr == policyPage
		ep = n.web.answer(r, &queue, e.Addr, wanted)
		return
	}
	defer n.table.hold(e.Addr.Addr())()
	var once *policy.Rule
	if wanted.ask != nil {
		var v policy.Verdict
		v, once = n.askUser(wanted.name, e.Addr, *wanted.ask)
		e.Allowed, e.Rule, wanted.requests = v.Allow, v.Rule, wanted.requests || v.Requests
	}
	h, release := n.hold(held{proto: policy.TCP, name: wanted.name, addr: e.Addr, once: once, reads: wanted.requests})
	defer release()
	finished, err := n.admitProxied(wanted.requests)
	defer finished()
	if !e.Allowed {
		err = &ClosedError{e.Addr, e.Rule}
	}
	var host HalfConn
	if err == nil {
		host, err = n.dialTCP(h)
	}
	if err != nil {
		n.config.Logger.Debug("the host could not connect for the guest", "address", e.Addr, "err", err)
		if closed, ok := errors.AsType[*ClosedError](err); ok {
			e.Allowed, e.Rule = false, closed.Rule
			if explained(e.Addr, closed.Rule) {
				wanted.rule = closed.Rule
				ep = n.web.answer(r, &queue, e.Addr, wanted)
				return
			}
		}
		if _, ok := errors.AsType[tooManyError](err); ok {
			e.Allowed, e.Rule = false, RuleLimit
		}
		answer, ok := rejection(err)
		r.Complete(!ok)
		n.dialed(id)
		if ok {
			n.reject(wanted.syn, answer)
		}
		wanted.syn.DecRef()
		return
	}
	if ep = n.accept(r, wanted, &queue); ep == nil {
		abort(host)
		return
	}
	if wanted.requests {
		n.serveProxied(h, ep, &queue, host, &e)
		return
	}
	check := unchecked
	// In the public network, what is not read is open as a whole, whatever it names.
	if port := e.Addr.Port(); wanted.name != "" && (port == 80 || port == 443) && n.rules.Load().allow != nil {
		check = func() (int64, error) {
			sent, err := n.checkOpening(ep, &queue, host, wanted.name)
			if mismatch, ok := errors.AsType[*mismatchError](err); ok {
				e.Allowed, e.Rule = false, mismatch.rule
			}
			return sent, err
		}
	}
	e.Sent, e.Received = relay(h.ctx, ep, &queue, host, check)
	if closed := h.closed(); closed != nil {
		e.Allowed, e.Rule = false, closed.Rule
	}
}

// accept answers the guest's attempt, and returns its connection; nil if there is none.
func (n *Network) accept(r *tcp.ForwarderRequest, wanted attempt, queue *waiter.Queue) tcpip.Endpoint {
	id := r.ID() // which is gone with the answer
	ep, err := r.CreateEndpoint(queue)
	r.Complete(false)
	n.dialed(id)
	wanted.syn.DecRef()
	if err != nil {
		return nil
	}
	n.tune(ep)
	return ep
}

func (n *Network) dialTCP(h *held) (HalfConn, error) {
	c, err := n.dial(h.ctx, h)
	if err != nil {
		return nil, err
	}
	host, ok := c.(HalfConn)
	if !ok {
		c.Close()
		return nil, errors.New("a connection that was dialled has no directions that end alone")
	}
	return host, nil
}

// rejection is what tells a guest the error that the host met. If there is none, a reset does.
func rejection(err error) (netstack.RejectIPv4WithICMPType, bool) {
	closed, _ := errors.AsType[*ClosedError](err)
	lookup, _ := errors.AsType[*net.DNSError](err)
	switch {
	case closed != nil, errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM): // the latter two by the host's firewall
		return netstack.RejectIPv4WithICMPAdminProhibited, true
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EADDRNOTAVAIL):
		return netstack.RejectIPv4WithICMPNetUnreachable, true
	case lookup != nil, errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, unix.ETIMEDOUT):
		return netstack.RejectIPv4WithICMPHostUnreachable, true
	}
	return 0, false
}

// Times of a connection's guest side.
const (
	// The guest is asked after a while whether it still knows the connection, because one that was booted anew does
	// not, and says so. One that is paused says nothing and is asked for as long as it takes.
	keepAliveIdle     = 2 * time.Minute
	keepAliveInterval = time.Minute
	keepAliveCount    = 1 << 30
)

// tune sets up the guest's side of a connection.
func (n *Network) tune(ep tcpip.Endpoint) {
	o := ep.SocketOptions()
	o.SetDelayOption(false)
	idle, interval := tcpip.KeepaliveIdleOption(keepAliveIdle), tcpip.KeepaliveIntervalOption(keepAliveInterval)
	for _, option := range []tcpip.SettableSocketOption{&idle, &interval} {
		if err := ep.SetSockOpt(option); err != nil {
			n.config.Logger.Debug("cannot set an option of a connection", "err", err)
		}
	}
	if err := ep.SetSockOptInt(tcpip.KeepaliveCountOption, keepAliveCount); err != nil {
		n.config.Logger.Debug("cannot set an option of a connection", "err", err)
	}
	o.SetKeepAlive(true)
	n.mu.Lock()
	open := n.tcp
	n.mu.Unlock()
	size := int64(buffers(open))
	o.SetSendBufferSize(size, true)
	if size > leastBuffer {
		o.SetReceiveBufferSize(perWindow*size, true)
	}
}

// buffers is how much of a connection may be on its way in each direction, in bytes, if it is one of several. With few
// connections, a guest gets what keeps its link busy; with a thousand, all of them together hold no more than a quarter of a
// gigabyte.
func buffers(connections int) int {
	const together = 9 << 18
	return min(max(together/max(connections, 1), leastBuffer), sendBuffer)
}

// hostConn is a TCP connection of the host's.
type hostConn interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
	SetLinger(seconds int) error
}

// abort ends a connection with a reset, if it can.
func abort(c net.Conn) {
	if c, ok := c.(hostConn); ok {
		_ = c.SetLinger(0)
	}
	_ = c.Close()
}
