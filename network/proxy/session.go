package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// session is a connection of the guest's while it is served, with those to the host that are made for it.
type session struct {
	Conn
	proxy     *Proxy
	out       *outbox // to the guest
	scheme    string
	protocols []string // of TLS's ALPN, that the host and the guest have in common
	transport *http.Transport
	wide      bool  // has one of the places for wideFlow
	broken    error // why nothing can be sent to the host
	vouched   atomic.Bool
	requests  atomic.Int64

	mu     sync.Mutex
	unused net.Conn // to the host, for the first request
	since  time.Time
	hosts  map[*hostConn]bool

	once  sync.Once
	ended chan struct{} // closed with the guest's connection
}

type sessionKey struct{}

func (s *session) tls() bool { return s.scheme == "https" }

// guestConn is a session's connection to the guest, of which some was read already.
type guestConn struct {
	net.Conn
	session *session
	reader  *bufio.Reader
}

func (c *guestConn) Read(b []byte) (int, error) { return c.reader.Read(b) }
func (c *guestConn) Close() error               { return c.session.closeGuest() }

// sessionOf is the session of a connection that the server has.
func sessionOf(c net.Conn) *session {
	if over, ok := c.(*tls.Conn); ok {
		c = over.NetConn()
	}
	return c.(*guestConn).session
}

// hostConn is one to the host, which ends with the session at the latest.
type hostConn struct {
	net.Conn
	session *session
}

func (c *hostConn) Close() error {
	c.session.mu.Lock()
	delete(c.session.hosts, c)
	c.session.mu.Unlock()
	return c.Conn.Close()
}

// own takes over a connection to the host.
func (s *session) own(c net.Conn) net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	host := &hostConn{c, s}
	select {
	case <-s.ended:
		c.Close()
	default:
		s.hosts[host] = true
	}
	return host
}

func (s *session) closeGuest() (err error) {
	s.once.Do(func() {
		err = s.Guest.Close()
		close(s.ended)
	})
	return err
}

func (s *session) close() {
	s.closeGuest()
	if s.wide {
		<-s.proxy.wide
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.hosts {
		c.Conn.Close()
	}
}

// open finds out whether the guest speaks TLS, and if it does, who it believes that it speaks with.
func (s *session) open(ctx context.Context) (net.Conn, error) {
	const recordHandshake = 0x16
	s.out = newOutbox(s.Guest)
	c := &guestConn{Conn: s.out, session: s, reader: bufio.NewReaderSize(s.Guest, 4<<10)}
	if err := s.Guest.SetReadDeadline(time.Now().Add(idleTimeout)); err != nil {
		return nil, err
	}
	first, err := c.reader.Peek(1)
	if err != nil {
		return nil, err
	}
	if err := s.Guest.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	s.scheme = "http"
	if first[0] != recordHandshake {
		s.transport = s.newTransport()
		return c, nil
	}
	s.scheme = "https"
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	over := tls.Server(c, &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: s.configFor})
	if err := over.HandshakeContext(ctx); err != nil {
		switch {
		case errors.Is(err, errServerName):
			s.Refused(RuleServerName, "")
		case s.vouched.Load() && ctx.Err() == nil:
			// It may be an alert that says so, but also one that cannot be read, or the connection's end.
			s.Refused(RuleNotTrusted, "")
		}
		return nil, err
	}
	s.transport = s.newTransport()
	return over, nil
}

// configFor asks the host what it speaks, of what the guest speaks, so that the guest is offered nothing else.
func (s *session) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if !s.named(hello.ServerName) {
		return nil, errServerName
	}
	var common []string
	for _, protocol := range hello.SupportedProtos {
		if protocol == "h2" || protocol == "http/1.1" {
			common = append(common, protocol)
		}
	}
	s.protocols = common
	s.mu.Lock()
	host := s.unused
	s.unused = nil
	s.mu.Unlock()
	over, err := s.handshake(hello.Context(), host)
	offered := common
	if err != nil {
		s.broken = err // which each request is answered with
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
			s.Refused(RuleCertificate, "")
		}
	} else {
		s.mu.Lock()
		s.unused, s.since = over, time.Now()
		s.mu.Unlock()
		offered = nil
		switch spoken := over.ConnectionState().NegotiatedProtocol; {
		case spoken != "":
			offered = []string{spoken}
		case slices.Contains(common, "http/1.1"): // which is what a host speaks that does not know ALPN
			offered = []string{"http/1.1"}
		}
	}
	leaf, err := s.proxy.options.Authority.Leaf(s.Name)
	if err != nil {
		return nil, err
	}
	s.vouched.Store(true)
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*leaf}, NextProtos: offered, SessionTicketsDisabled: true}, nil
}

// named tells whether a client means the session's host, whose name is in small letters.
func (s *session) named(host string) bool {
	host = strings.TrimSuffix(host, ".")
	return len(host) == len(s.Name) && strings.EqualFold(host, s.Name) // of one length, so that all letters are ASCII's
}

// handshake takes over a connection to the host.
func (s *session) handshake(ctx context.Context, host net.Conn) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	over := tls.Client(host, &tls.Config{MinVersion: tls.VersionTLS12, ServerName: s.Name, RootCAs: s.proxy.options.Roots, NextProtos: s.protocols})
	if err := over.HandshakeContext(ctx); err != nil {
		host.Close()
		return nil, err
	}
	return over, nil
}

// newTransport sends requests to the host over connections that are the session's own, the first of which is there.
func (s *session) newTransport() *http.Transport {
	flow, dials, h2 := hostFlow, dialsAtOnce, slices.Contains(s.protocols, "h2")
	if h2 {
		select {
		case s.proxy.wide <- struct{}{}:
			s.wide, flow, dials = true, wideFlow, wideDials
		default:
		}
	}
	t := &http.Transport{
		DisableCompression:     true, // what is compressed is the guest's to read
		ExpectContinueTimeout:  continueTimeout,
		MaxConnsPerHost:        dials,
		MaxResponseHeaderBytes: maxAnswerHeader,
		HTTP2:                  &flow,
		Protocols:              new(http.Protocols),
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return s.connection(ctx) },
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := s.connection(ctx)
			if over, ok := c.(*tls.Conn); err != nil || ok {
				return over, err
			}
			return s.handshake(ctx, c)
		},
	}
	t.Protocols.SetHTTP1(true)
	t.Protocols.SetHTTP2(h2)
	return t
}

// connection is one to the host: the one that is there, or another. A host may have ended one on which nothing was asked
// for a while.
func (s *session) connection(ctx context.Context) (net.Conn, error) {
	s.mu.Lock()
	c, age := s.unused, time.Since(s.since)
	s.unused = nil
	s.mu.Unlock()
	switch {
	case c != nil && age < s.proxy.fresh:
		return c, nil
	case c != nil:
		c.Close()
	}
	c, err := s.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return s.own(c), nil
}
