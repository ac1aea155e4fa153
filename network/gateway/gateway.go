// Package gateway gives a guest a network that is ours: its frames come over a socket from QEMU and go to a process
// of their own (package server), which is confined as QEMU is, judges each connection by a policy, and makes it
// in the guest's place.
//
// The gateway holds what must outlive that process: the ends of the socket, and the host's ports that lead to the
// guest. When the process dies, another one takes its place, and QEMU does not notice.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/confine"
	"github.com/sourcery-zone/sandbox/internal/process"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/gateway/internal/wire"
	"github.com/sourcery-zone/sandbox/network/stack"
	"github.com/sourcery-zone/sandbox/network/upstream"
)

const (
	// Name is argv[0] of the process, by which the program knows that it is one, and people see it in lists.
	Name = "sandbox: network"

	// FDControl is where the process is told what to do, and FDNotices where it tells what it does by itself.
	FDControl = 3
	FDNotices = 4

	// MTU is the largest IP packet on the way between guest and gateway, in bytes. Frames that large cost a tenth
	// of what frames of 1500 bytes cost.
	MTU = stack.MaxMTU

	// memoryBound is more than all limits of package stack add up to, in bytes of data as the kernel counts it, of which
	// Go takes 80 MiB at once. Who gets beyond has found a way around them: the process dies, and another takes its place.
	memoryBound = 512 << 20

	// rootsFile is where package crypto/x509 looks first.
	rootsFile = "/etc/ssl/certs/ca-certificates.crt"

	// MaxRules is how many rules there may be, so that what the process is told fits into one message.
	MaxRules = 256
)

// Options describe a guest's network.
type Options struct {
	Mode      network.Mode       // one that judges
	Allow     []string           // rules that open (see policy.ParseRule); with those that close, no more than MaxRules
	Deny      []string           // rules that close (see policy.ParseDeny)
	Upstream  upstream.Settings  // the proxies by which the host reaches the Internet
	HostPorts []network.HostPort // of the host's loopback, that are open to the guest; no more than network.MaxHostPorts
	HostName  string             // of the guest
	Card      net.HardwareAddr   // see stack.Config
	Search    []string           // domains in which the guest is to look for short names

	// Remedy is a command to which a rule is appended to open something, for the person whose sandbox it is. Who is refused
	// something in the guest is told of it; of nothing, if it is empty.
	Remedy string

	// Resolver has the content of a resolv.conf(5), which is read whenever it has changed: whom to ask for names.
	// It must be in memory (memfd_create(2)), and stays the caller's.
	Resolver *os.File

	// Secrets are put into the guest's requests; no more than MaxSecrets.
	Secrets []Secret
	// Answers are what the guest's requests by POST to those URLs, which begin with https://, are answered with, as JSON, in place
	// of the host. They take an Authority as secrets do, and open nothing.
	Answers map[string][]byte
	// Authority vouches for the hosts of which Allow opens some requests only, and those of secrets (see authority.Parse). It
	// is secret. Where it is missing, SetAuthority has to come before the first such rule.
	Authority []byte
	// Roots has the certificates of those whom such hosts have to be vouched for by, in PEM: without it, none of them is
	// believed. As Resolver, it is in memory, and the caller's.
	Roots *os.File

	Log    io.Writer    // of the process, as lines of JSON: an Entry each
	Logger *slog.Logger // of the gateway itself

	// Died is called when a process has died, before another one takes its place: nobody tells the guest that its connections
	// have ended. It may be nil.
	Died func(context.Context)

	// Started is called when a process has begun, also one that takes another's place. It may be nil.
	Started func(pid int, walls confine.Report)

	// Question is called when the user is to be asked whether the guest may connect to something, and again when that
	// question has ended; for one thing at a time. It may be nil. The process may be in the guest's hands, and say anything.
	// The questions of a process end with it.
	Question func(stack.Question)

	// Loopback connects to a port of the guest's own loopback. It is called for ports that are published, of which the
	// guest refuses a connection, up to maxLoopback at once. It may be nil.
	Loopback func(ctx context.Context, port uint16) (stack.HalfConn, error)

	// AllowWeak starts the process also where nothing can keep it from the user's files.
	AllowWeak bool
}

// Gateway is a guest's network.
type Gateway struct {
	options  Options
	program  confine.Program
	spec     confine.Spec
	ctx      context.Context // of the processes
	end      context.CancelFunc
	qemu     *os.File
	link     *os.File      // the other end, of which each frame is one datagram: a process that died leaves no half of one
	finished chan struct{} // closed when no process is left

	mu        sync.Mutex
	rules     wire.Rules
	authority []byte
	secrets   []heldSecret
	answers   []wire.Response
	published []published
	lastID    int
	loopbacks int       // connections to the guest's loopback
	control   wire.Conn // to the process that runs

	process atomic.Pointer[process.Process] // that runs, or ran last
}

// published is a port of the host that leads to the guest.
type published struct {
	network.Forward
	id     int
	socket *os.File
}

// Start starts the process. It lives until Close, or until this process ends.
func Start(ctx context.Context, o Options) (_ *Gateway, err error) {
	g := &Gateway{options: o, rules: wire.Rules{Allow: o.Allow, Deny: o.Deny}, authority: o.Authority, finished: make(chan struct{})}
	g.ctx, g.end = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			g.end()
			closeFiles(g.qemu, g.link)
		}
	}()
	if g.secrets, err = holdSecrets(o.Secrets); err != nil {
		return nil, err
	}
	if g.answers, err = holdAnswers(o.Answers); err != nil {
		return nil, err
	}
	parts, err := confine.OwnParts(ctx)
	if err != nil {
		return nil, err
	}
	user, err := confine.ChooseUser(os.Getpid() + confine.Another) // another one than QEMU's
	if err != nil {
		return nil, err
	}
	g.spec = confine.Spec{
		Room:   &confine.Room{Paths: parts.Paths(), Executes: parts.Executes(), Network: true, User: user, AllowWeak: o.AllowWeak},
		Filter: confine.WorkingFilter(sockets()...),
	}
	g.program = confine.Program{Self: Name, Env: []string{"PATH=", "LC_ALL=C"}}
	if g.link, g.qemu, err = stack.Pair(); err != nil {
		return nil, err
	}
	if err := g.run(); err != nil {
		return nil, fmt.Errorf("starting the guest's network: %w", err)
	}
	go g.keep()
	return g, nil
}

// timerSlack is little beside the times of the network, which are those of TCP, and keeps the process from waking twenty
// times while one connection is made, on processors that the guest waits for. A timer that is late by a tick of the kernel,
// 4 ms on most, goes with it, and needs no interrupt of its own.
const timerSlack = 4 * time.Millisecond

// sockets are what the process may make: connections in the guest's place, and one by which it learns which
// addresses this machine has.
func sockets() []confine.Socket {
	return append(confine.InternetSockets(), confine.Socket{Family: unix.AF_NETLINK, Type: unix.SOCK_RAW, OnlyProtocol: true, Protocol: unix.NETLINK_ROUTE})
}

// QEMU is the socket that QEMU is to have as the guest's network device. It stays the gateway's to close.
func (g *Gateway) QEMU() *os.File { return g.qemu }

// run starts a process and tells it all that there is.
func (g *Gateway) run() (err error) {
	control, theirControl, err := wire.Pair()
	if err != nil {
		return err
	}
	notices, theirNotices, err := wire.Pair()
	if err != nil {
		return errors.Join(err, control.Close(), theirControl.Close())
	}
	p := g.program
	p.Files = []confine.File{{File: theirControl}, {File: theirNotices}}
	if g.options.Resolver != nil {
		p.Files = append(p.Files, confine.File{File: g.options.Resolver, Reopen: confine.Read, Link: network.ResolverFile})
	}
	if g.options.Roots != nil {
		p.Files = append(p.Files, confine.File{File: g.options.Roots, Reopen: confine.Read, Link: rootsFile})
	}
	started, walls, err := confine.Start(g.ctx, p, g.spec, process.Options{Log: g.options.Log, TimerSlack: timerSlack})
	closeFiles(theirControl, theirNotices) // so that ours end with the process
	if err != nil {
		return errors.Join(err, control.Close(), notices.Close())
	}
	go g.takeNotices(notices, control)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.control = control
	g.process.Store(started)
	bound := unix.Rlimit{Cur: memoryBound, Max: memoryBound}
	if err := unix.Prlimit(started.PID(), unix.RLIMIT_DATA, &bound, nil); err != nil {
		g.options.Logger.Warn("the memory of the guest's network has no bound", "err", err)
	}
	if len(g.secrets) > 0 {
		// So that it can keep them out of swap space. Without privileges, we have what we were given.
		unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
		_ = unix.Prlimit(started.PID(), unix.RLIMIT_MEMLOCK, &unlimited, nil)
	}
	for _, s := range g.secrets {
		if err == nil {
			err = control.Ask(wire.Request{Secret: &s.told}, s.value)
		}
	}
	if err == nil {
		err = control.Ask(wire.Request{Start: &wire.Start{
			MTU: MTU, Mode: g.options.Mode, Rules: g.rules, HostPorts: g.options.HostPorts, Upstream: g.options.Upstream,
			HostName: g.options.HostName, Card: g.options.Card, Search: g.options.Search, Remedy: g.options.Remedy, Authority: g.authority, Responses: g.answers,
		}}, g.link)
	}
	for _, p := range g.published {
		if err == nil {
			err = g.ask(p)
		}
	}
	if err != nil {
		control.Close()
		_ = started.Stop(context.WithoutCancel(g.ctx), 0)
		return errors.Join(err, started.Err())
	}
	if g.options.Started != nil {
		g.options.Started(started.PID(), walls)
	}
	return nil
}

// takeNotices reads what a process tells until it is gone. Control is that process's own.
func (g *Gateway) takeNotices(c, control wire.Conn) {
	defer c.Close()
	for {
		n, err := c.NextNotice()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				g.options.Logger.Warn("what the guest's network tells cannot be read", "err", err)
			}
			return
		}
		if n.Lost > 0 {
			g.options.Logger.Warn("the guest's network has more to tell than can be read", "lost", n.Lost)
		}
		if n.Loopback != nil {
			g.connectLoopback(*n.Loopback, control)
		}
		if n.Question != nil && g.options.Question != nil {
			g.options.Question(*n.Question)
		}
	}
}

// The pauses before another process takes the place of one that died, lest one that dies each time keeps the
// machine busy.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 10 * time.Second
)

// keep sees to it that there is a process until the end.
func (g *Gateway) keep() {
	defer close(g.finished)
	pause := firstPause
	for {
		started := time.Now()
		<-g.process.Load().Done()
		g.control.Close()
		if g.ctx.Err() != nil {
			return
		}
		g.options.Logger.Warn("the guest's network died and is started anew", "err", g.process.Load().Err())
		if time.Since(started) > lastPause {
			pause = firstPause
		}
		if g.options.Died != nil {
			g.options.Died(g.ctx)
		}
		for {
			select {
			case <-time.After(pause):
			case <-g.ctx.Done():
				return
			}
			pause = min(2*pause, lastPause)
			err := g.run()
			if err == nil {
				break
			}
			g.options.Logger.Error("the guest has no network", "err", err)
		}
	}
}

// Publish opens a port of the host that leads to the guest, and returns it with the port that was chosen if any
// would do. It stays open, also while no process is there to serve it, until the end.
func (g *Gateway) Publish(f network.Forward) (network.Forward, error) {
	socket, f, err := f.Open()
	if err != nil {
		return f, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lastID++
	p := published{f, g.lastID, socket}
	if g.ctx.Err() != nil {
		return f, errors.Join(errors.New("the guest's network has ended"), socket.Close())
	}
	// A process that has died meanwhile leaves it to the next one.
	if err := g.ask(p); isRefusal(err) {
		return f, errors.Join(fmt.Errorf("publishing %s: %w", f, err), socket.Close())
	}
	g.published = append(g.published, p)
	return f, nil
}

// Unpublish closes a port that Publish has returned, and ends the connections to it.
func (g *Gateway) Unpublish(f network.Forward) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.IndexFunc(g.published, func(p published) bool { return p.Forward == f })
	if i < 0 {
		return fmt.Errorf("%s is not published", f)
	}
	p := g.published[i]
	// The next process does not learn of it, should this one be gone.
	if err := g.tell(wire.Request{Unpublish: p.id}, nil); isRefusal(err) {
		return fmt.Errorf("closing the port %s: %w", f, err)
	}
	g.published = slices.Delete(g.published, i, i+1)
	return p.socket.Close()
}

// SetRules opens and closes what the rules say from now on, in place of those of before, and ends connections that are
// closed now.
func (g *Gateway) SetRules(allow, deny []string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	next := wire.Rules{Allow: allow, Deny: deny}
	// The next process learns of it, should this one be gone.
	if err := g.tell(wire.Request{Rules: &next}, nil); isRefusal(err) {
		return fmt.Errorf("changing the rules of the guest's network: %w", err)
	}
	g.rules = next
	return nil
}

// SetAuthority is Options.Authority for a network that had none at its start.
func (g *Gateway) SetAuthority(text []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	// The next process learns of it, should this one be gone.
	if err := g.tell(wire.Request{Authority: text}, nil); isRefusal(err) {
		return fmt.Errorf("having requests of the guest's network read: %w", err)
	}
	g.authority = text
	return nil
}

// AllowOnce opens the connections that wait for the answer to a question, and no others.
func (g *Gateway) AllowOnce(id string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.tell(wire.Request{AllowOnce: id}, nil)
}

// tell asks the process for something. One that does not answer is ended, so that another one does what it was told: it
// may be in the guest's hands, and must neither hold us up nor go on as before. The caller holds the lock.
func (g *Gateway) tell(r wire.Request, f *os.File) error { return g.tellBy(g.control, r, f) }

// tellBy is tell for the process of a control socket, which may have been replaced meanwhile.
func (g *Gateway) tellBy(control wire.Conn, r wire.Request, f *os.File) error {
	err := control.Ask(r, f)
	if err != nil && !isRefusal(err) && control.UnixConn == g.control.UnixConn {
		_ = g.process.Load().Stop(context.WithoutCancel(g.ctx), 0)
	}
	return err
}

// ask tells the process of a port. The caller holds the lock.
func (g *Gateway) ask(p published) error {
	return g.tell(wire.Request{Publish: &wire.Publish{ID: p.id, Proto: p.Proto, GuestPort: uint16(p.GuestPort)}}, p.socket)
}

func isRefusal(err error) bool {
	_, ok := errors.AsType[*wire.Refusal](err)
	return ok
}

// Close ends the guest's network and closes the host's ports that led to it. It may be called on nil.
func (g *Gateway) Close() {
	if g == nil {
		return
	}
	g.end()
	_ = g.process.Load().Stop(context.Background(), 0) // it has nothing to lose, and may stand still
	<-g.finished
	g.mu.Lock()
	defer g.mu.Unlock()
	closeFiles(g.qemu, g.link)
	for _, p := range g.published {
		p.socket.Close()
	}
}

func closeFiles(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}
