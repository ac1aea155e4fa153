package stack

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// serverTimeout is how long one server has for its answer before the next is asked.
	serverTimeout = 2 * time.Second
	// maxServers and maxRecords bound what one question costs.
	maxServers = 3
	maxRecords = 256
)

// forward asks the host's servers.
func (n *Network) forward(ctx context.Context, q question) reply {
	servers, err := n.config.Servers()
	if err != nil {
		n.config.Logger.Debug("the host's DNS servers cannot be read", "err", err)
	}
	for _, server := range servers[:min(len(servers), maxServers)] {
		a, err := n.ask(ctx, server, q)
		if err == nil {
			return a
		}
		n.config.Logger.Debug("a DNS server did not answer", "server", server, "err", err)
	}
	return q.fail(dnsmessage.RCodeServerFailure)
}

// ask asks one server, a second time over a connection if the answer is too long for a datagram. The question is made
// anew, so nothing of the guest's message reaches the server but a name and a type.
func (n *Network) ask(ctx context.Context, server netip.AddrPort, q question) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, serverTimeout)
	defer cancel()
	var h dnsmessage.ResourceHeader
	if err := h.SetEDNS0(maxSize, 0, false); err != nil {
		return reply{}, err
	}
	id := uint16(rand.Uint32())
	query, err := (&dnsmessage.Message{
		Header:      dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions:   []dnsmessage.Question{q.Question},
		Additionals: []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}},
	}).Pack()
	if err != nil {
		return reply{}, err
	}
	for _, network := range []string{"udp", "tcp"} {
		message, err := exchange(ctx, network, server, query)
		if err != nil {
			return reply{}, err
		}
		a, cut, err := n.parseAnswer(message, id, q)
		if err != nil || !cut {
			return a, err
		}
	}
	return reply{}, errors.New("the answer is cut off even over a connection")
}

// exchange sends a query and returns what comes back.
func exchange(ctx context.Context, network string, server netip.AddrPort, query []byte) ([]byte, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if network == "udp" {
		if _, err := conn.Write(query); err != nil {
			return nil, err
		}
		message := make([]byte, maxSize)
		k, err := conn.Read(message)
		return message[:k], err
	}
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, err
	}
	message := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err = io.ReadFull(conn, message)
	return message, err
}

// parseAnswer keeps of a server's message what answers the question, and of addresses only the open ones.
func (n *Network) parseAnswer(message []byte, id uint16, q question) (a reply, cut bool, err error) {
	var p dnsmessage.Parser
	h, err := p.Start(message)
	if err != nil {
		return a, false, err
	}
	questions, err := p.AllQuestions()
	if err != nil {
		return a, false, err
	}
	if h.ID != id || !h.Response || len(questions) != 1 || !sameQuestion(questions[0], q.Question) {
		return a, false, errors.New("what came back is no answer to the question")
	}
	if h.Truncated {
		return a, true, nil
	}
	if h.RCode != dnsmessage.RCodeSuccess && h.RCode != dnsmessage.RCodeNameError {
		return a, false, errors.New("the server says " + h.RCode.String())
	}
	a = q.fail(h.RCode)
	if a.answers, err = n.keep(p.Answer); err != nil {
		return a, false, err
	}
	a.authority, err = n.keep(p.Authority)
	return a, false, err
}

// keep returns a section of a message, without records that hold closed addresses, name them, or lead around addresses.
func (n *Network) keep(next func() (dnsmessage.Resource, error)) (kept []dnsmessage.Resource, err error) {
	for range maxRecords {
		r, err := next()
		if err == dnsmessage.ErrSectionDone {
			return kept, nil
		}
		if err != nil {
			return nil, err
		}
		open := true
		if addr, ok := reversed(question{Question: dnsmessage.Question{Name: r.Header.Name}}.host()); ok {
			open = n.open(addr) // an alias elsewhere may lead to it
		}
		switch body := r.Body.(type) {
		case *dnsmessage.AResource:
			open = open && n.open(netip.AddrFrom4(body.A))
		case *dnsmessage.AAAAResource:
			open = open && n.open(netip.AddrFrom16(body.AAAA))
		}
		if open && r.Header.Type != typeSVCB && r.Header.Type != typeHTTPS {
			kept = append(kept, r)
		}
	}
	return nil, errors.New("the answer has too many records")
}

func (n *Network) open(a netip.Addr) bool {
	return n.rules.Load().public.Reachable(a).Allow
}

func sameQuestion(a, b dnsmessage.Question) bool {
	return question{Question: a}.host() == question{Question: b}.host() && a.Type == b.Type && a.Class == b.Class
}
