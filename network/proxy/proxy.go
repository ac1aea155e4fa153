// Package proxy reads the requests that a guest sends to a host of which some requests only are open: it is that host for
// the guest, by a certificate of the sandbox's own authority, has each request judged, and sends those that are open to
// the host. What a request has, the host gets, and what the host answers, the guest gets, as it comes: nothing is
// collected on the way.
//
// With a table of secrets, requests have these in place of what stands for them in the guest: see package secret.
//
// Requests are read and written anew, and never copied, so that the host cannot read other ones in what it gets than
// were judged.
package proxy

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"

	"github.com/sourcery-zone/sandbox/network/authority"
	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/sourcery-zone/sandbox/network/secret"
)

// Rules that a Proxy adds to those of its policy.
const (
	RuleServerName   = "sni-mismatch"     // the client asks, by TLS, for another host than the one that it connected to
	RuleHostHeader   = "host-mismatch"    // the same by HTTP
	RuleNotTrusted   = "tls-not-trusted"  // the client believes other authorities only, or has not asked for anything
	RuleCertificate  = "host-certificate" // the host's own certificate is not to be believed
	RuleAmbiguous    = "ambiguous-request"
	RuleTooMany      = "limit" // of requests at once
	MaxConnections   = 128     // that are worth their memory, which together is about as much as that of all others
	maxRequests      = 256     // at once, of all connections
	maxHeader        = 64 << 10
	maxAnswerHeader  = 128 << 10
	maxShownRequest  = 200 // bytes of one in a log
	copyBuffer       = 64 << 10
	headerTimeout    = 30 * time.Second
	idleTimeout      = 10 * time.Minute // after which a client expects that a connection may have ended
	handshakeTimeout = 30 * time.Second
	freshTime        = 5 * time.Second
	continueTimeout  = time.Second // as that of curl and others, for servers that do not know 100-continue
	dialsAtOnce      = 16
	wideSessions     = 8 // that may have wideFlow
	wideDials        = 4 // of each of them
)

// flow are the bounds of HTTP/2 on both sides: what is sent and not yet taken is kept here. A stream has half of its
// connection's at most, so that another one goes on when the guest takes nothing of it.
var (
	guestFlow = http.HTTP2Config{MaxConcurrentStreams: 100, MaxReadFrameSize: 16 << 10, MaxReceiveBufferPerConnection: 256 << 10, MaxReceiveBufferPerStream: 128 << 10}
	hostFlow  = http.HTTP2Config{MaxReadFrameSize: 16 << 10, MaxReceiveBufferPerConnection: 512 << 10, MaxReceiveBufferPerStream: 256 << 10}
	// wideFlow is that of the first connections, and most guests have no others. It is what a host may send until it hears that
	// we took it: at 50 ms of distance, 30 MiB in a second.
	wideFlow = http.HTTP2Config{MaxReadFrameSize: 64 << 10, MaxReceiveBufferPerConnection: 3 << 20, MaxReceiveBufferPerStream: 3 << 19}
)

// Options say what a Proxy is made of.
type Options struct {
	Authority *authority.Authority
	Roots     *x509.CertPool // whom hosts are believed; nil: those of the system
	Secrets   *secret.Table  // which are put into requests; nil: none
	Answers   []Answer       // to requests that no host gets
	Logger    *slog.Logger   // gets what is of interest to the developer; nil: nothing
}

// Conn is a connection of the guest's, to a port of the host called Name.
type Conn struct {
	Guest net.Conn
	Host  net.Conn // that was dialled for it; the Proxy closes both
	Name  string
	Port  uint16

	Dial    func(context.Context) (net.Conn, error) // dials the host again
	Judge   func(policy.Request) policy.Verdict
	Remedy  func(rule string) string   // returns a command that adds a rule, for the person whose sandbox it is; may be nil
	Refused func(rule, request string) // is told of each refusal; request is empty if it was that of the connection
}

// Proxy serves connections.
type Proxy struct {
	options Options
	server  *http.Server
	conns   chan net.Conn
	closed  chan struct{}
	ended   sync.WaitGroup
	running chan struct{} // as many requests as there may be
	wide    chan struct{} // as many sessions as may have wideFlow
	buffers bufferPool
	fresh   time.Duration // how long a connection to a host is used for a first request
}

// New returns a Proxy. The caller closes it.
func New(o Options) *Proxy {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Proxy{options: o, conns: make(chan net.Conn), closed: make(chan struct{}), running: make(chan struct{}, maxRequests), wide: make(chan struct{}, wideSessions), fresh: freshTime}
	flow := guestFlow
	p.server = &http.Server{
		Handler:           http.HandlerFunc(serveHTTP),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		// A request is the host's to answer, whatever it is.
		DisableGeneralOptionsHandler: true,
		HTTP2:                        &flow,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, sessionKey{}, sessionOf(c))
		},
		ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	p.ended.Go(func() { _ = p.server.Serve(listener{p}) })
	return p
}

// Close ends all connections.
func (p *Proxy) Close() error {
	err := p.server.Close()
	p.ended.Wait()
	return err
}

// listener hands the server connections of which is known already what they are.
type listener struct{ *Proxy }

func (l listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l listener) Close() error {
	close(l.closed) // the server calls it once
	return nil
}

func (l listener) Addr() net.Addr { return &net.TCPAddr{} }

// Serve serves a connection until it ends, or ctx does.
func (p *Proxy) Serve(ctx context.Context, c Conn) {
	s := &session{proxy: p, Conn: c, ended: make(chan struct{}), hosts: map[*hostConn]bool{}}
	defer s.close()
	s.unused, s.since = s.own(c.Host), time.Now()
	stop := context.AfterFunc(ctx, func() { s.closeGuest() })
	defer stop()
	served, err := s.open(ctx)
	if err != nil {
		p.options.Logger.Debug("a connection ended before its first request", "name", c.Name, "err", err)
		return
	}
	select {
	case p.conns <- served:
		<-s.ended
		if s.tls() && s.requests.Load() == 0 && ctx.Err() == nil {
			s.Refused(RuleNotTrusted, "") // as of clients that look at the certificate after the handshake
		}
	case <-p.closed:
	}
}

// reverse sends a request of the session's to its host, and hands on the answer.
func (p *Proxy) reverse(s *session, answer http.ResponseWriter) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:       s.rewrite,
		Transport:     sender{s, answer},
		FlushInterval: -1,
		BufferPool:    &p.buffers,
		ErrorHandler:  s.failed,
		ErrorLog:      log.New(io.Discard, "", 0), // it tells of clients that have gone
	}
}

// bufferPool has the buffers in which answers are carried.
type bufferPool struct{ sync.Pool }

func (b *bufferPool) Get() []byte {
	if kept, ok := b.Pool.Get().(*[copyBuffer]byte); ok {
		return kept[:]
	}
	return make([]byte, copyBuffer)
}

func (b *bufferPool) Put(used []byte) { b.Pool.Put((*[copyBuffer]byte)(used)) }

var errServerName = errors.New("the client names another host, or none")
