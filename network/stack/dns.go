package stack

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/policy"
	"golang.org/x/net/dns/dnsmessage"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Resolver finds the addresses of a name, as net.Resolver does.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// dnsAddress is where the DNS server is.
var dnsAddress = netip.AddrPortFrom(DNS, dnsPort)

const (
	dnsPort = 53
	// maxQuestions is how many may be in flight. Those beyond are answered at once, by an error after which a client
	// asks again.
	maxQuestions = 128
	// maxQuestion is more than a question with the longest name has, in bytes.
	maxQuestion = 4096
	// lookupTimeout is what a client waits at most before it asks again.
	lookupTimeout = 5 * time.Second
	// dnsIdle is how long a connection to the DNS server may wait for its next question.
	dnsIdle = 10 * time.Second
	// answerTTL is how long a guest may keep addresses, in seconds. The host's resolver does not tell the real time.
	answerTTL = 30
)

// closedWhy is what a guest is told of a name that leads only where it may not.
const closedWhy = "closed by the sandbox's network policy"

// isInternal tells whether a name, in small letters and without a dot at its end, is no other's business than the network's.
func isInternal(name string) bool { return isWithin(name, network.InternalDomain) }

// isWithin tells whether a name is a domain or one below it.
func isWithin(name, domain string) bool { return name == domain || strings.HasSuffix(name, "."+domain) }

func (n *Network) serveDNS() error {
	packets, err := gonet.DialUDP(n.stack, &tcpip.FullAddress{NIC: nic, Addr: tcpipAddress(DNS), Port: dnsPort}, nil, ipv4.ProtocolNumber)
	if err != nil {
		return err
	}
	context.AfterFunc(n.ctx, func() { packets.Close() })
	go n.serveDNSPackets(packets)
	return nil
}

func (n *Network) serveDNSPackets(conn net.PacketConn) {
	b := make([]byte, maxQuestion)
	for {
		k, from, err := conn.ReadFrom(b)
		if err != nil {
			return
		}
		q, ok := parseQuestion(b[:k])
		if !ok {
			continue
		}
		select {
		case n.questions <- struct{}{}:
		default:
			_, _ = conn.WriteTo(q.fail(dnsmessage.RCodeServerFailure).pack(q.size), from)
			continue
		}
		go func() {
			defer func() { <-n.questions }()
			_, _ = conn.WriteTo(n.answer(q).pack(q.size), from)
		}()
	}
}

// answerDNSConn takes a guest's connection to the DNS server, and returns when it has ended.
func (n *Network) answerDNSConn(r *tcp.ForwarderRequest, wanted attempt) {
	var queue waiter.Queue
	ep := n.accept(r, wanted, &queue)
	if ep == nil {
		return
	}
	n.serveDNSConn(newPieceConn(&queue, ep))
	_ = ep.Shutdown(tcpip.ShutdownWrite)
	end(n.ctx, ep, &queue)
}

// serveDNSConn answers questions in their order, each with its length before it (RFC 7766).
func (n *Network) serveDNSConn(conn net.Conn) {
	stop := context.AfterFunc(n.ctx, func() { conn.Close() })
	defer stop()
	b := make([]byte, maxQuestion)
	for {
		_ = conn.SetDeadline(time.Now().Add(dnsIdle))
		if _, err := io.ReadFull(conn, b[:2]); err != nil {
			return
		}
		length := int(binary.BigEndian.Uint16(b))
		if length > len(b) {
			return
		}
		if _, err := io.ReadFull(conn, b[:length]); err != nil {
			return
		}
		q, ok := parseQuestion(b[:length])
		if !ok {
			return
		}
		var a reply
		select {
		case n.questions <- struct{}{}:
			a = n.answer(q)
			<-n.questions
		default:
			a = q.fail(dnsmessage.RCodeServerFailure)
		}
		_ = conn.SetDeadline(time.Now().Add(dnsIdle))
		message := a.pack(maxMessage)
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)); err != nil {
			return
		}
	}
}

// answer finds the answer to a question, and logs both.
func (n *Network) answer(q question) reply {
	if q.rcode != dnsmessage.RCodeSuccess {
		return q.fail(q.rcode)
	}
	ctx, cancel := context.WithTimeout(n.ctx, lookupTimeout)
	defer cancel()
	e, began := Event{Proto: ProtoDNS, Name: q.host(), Allowed: true, Rule: policy.RulePublic}, time.Now()
	r := n.rules.Load()
	var a reply
	switch {
	case q.host() == network.PolicyName:
		e.Rule = RulePolicyPage
		a = q.fail(dnsmessage.RCodeSuccess)
		if q.Type == dnsmessage.TypeA {
			a.addresses, a.ttl = []netip.Addr{policyPage.Addr()}, nameTTL
		}
	case n.config.namesHost(q.host()):
		a = n.answerHost(q, &e)
	case isInternal(q.host()):
		e.Rule = RuleNoName
		a = q.fail(dnsmessage.RCodeNameError)
	case r.allow != nil:
		a = n.answerAllowed(ctx, r.allow, q, &e)
	case q.Type == dnsmessage.TypeA || q.Type == dnsmessage.TypeAAAA:
		if a = n.answerAddresses(ctx, q, &e); r.read.of(q.host()) != nil {
			a = n.standIn(a, &e)
		}
	case q.Type == typeSVCB || q.Type == typeHTTPS:
		// They lead around a name's addresses, and a name has all that it needs without.
		a = q.fail(dnsmessage.RCodeSuccess)
	case q.Type == dnsmessage.TypePTR:
		a = n.answerPointer(ctx, q, &e)
	case forwarded[q.Type]:
		a = n.forward(ctx, q)
	default:
		a = q.fail(dnsmessage.RCodeNotImplemented)
	}
	n.event(e, began)
	return a
}

// answerAddresses finds the open addresses of a name. If all are closed, the name is one that does not exist.
func (n *Network) answerAddresses(ctx context.Context, q question, e *Event) reply {
	found, err := n.lookup(ctx, q.host())
	if err != nil {
		return n.lookupFailed(ctx, q, err)
	}
	a := q.fail(dnsmessage.RCodeSuccess)
	open := 0
	for _, addr := range found {
		addr = addr.Unmap()
		if v := n.rules.Load().public.Reachable(addr); !v.Allow {
			e.Rule, e.Addr = v.Rule, netip.AddrPortFrom(addr, 0)
			continue
		}
		open++
		n.names.add(addr, q.host())
		if addr.Is4() == (q.Type == dnsmessage.TypeA) {
			a.addresses = append(a.addresses, addr)
		}
	}
	if open == 0 && len(found) > 0 {
		e.Allowed = false
		return q.block(closedWhy)
	}
	e.Rule, e.Addr = policy.RulePublic, netip.AddrPort{}
	return a
}

// lookup finds all addresses of a name, once for those who ask at the same time: a program asks for those of IPv4 and
// of IPv6 one after the other, and whether there is such a name, only both together can tell.
func (n *Network) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	result := n.lookups.DoChan(host, func() (any, error) {
		ctx, cancel := context.WithTimeout(n.ctx, lookupTimeout)
		defer cancel()
		return n.config.Resolver.LookupNetIP(ctx, "ip", host+".")
	})
	select {
	case r := <-result:
		addrs, _ := r.Val.([]netip.Addr)
		return addrs, r.Err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// lookupFailed answers by the error of a lookup. It tells a name that does not exist from one that has no addresses,
// which package net does not.
func (n *Network) lookupFailed(ctx context.Context, q question, err error) reply {
	if dnsErr, ok := errors.AsType[*net.DNSError](err); !ok || !dnsErr.IsNotFound {
		return q.fail(dnsmessage.RCodeServerFailure)
	}
	if a := n.forward(ctx, q); a.rcode == dnsmessage.RCodeSuccess {
		return q.fail(dnsmessage.RCodeSuccess)
	}
	return q.fail(dnsmessage.RCodeNameError)
}

// answerPointer finds the name of an address, unless it is a closed one: what the machines of a network are called is
// that network's business.
func (n *Network) answerPointer(ctx context.Context, q question, e *Event) reply {
	addr, ok := reversed(q.host())
	if !ok {
		return n.forward(ctx, q) // such as _http._tcp.example.com, also if that is an alias of an address's name
	}
	if v := n.rules.Load().public.Reachable(addr); !v.Allow {
		e.Allowed, e.Rule, e.Addr = false, v.Rule, netip.AddrPortFrom(addr, 0)
		return q.block(closedWhy)
	}
	return n.forward(ctx, q)
}
