package gate

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/tree"
	"github.com/sourcery-zone/sandbox/virtiofs/rules"
)

// Judge decides. *rules.Set is one.
type Judge interface {
	Judge(rules.Access) rules.Verdict
	// WantsContent tells whether the content of what gets the name decides.
	WantsContent(path string) bool
	// Hides tells whether anything is refused that only reads.
	Hides() bool
}

// Owner is the user of the host to whom the guest's files belong, with its groups.
type Owner struct {
	UID, GID int
	Groups   []int
}

// Event is something that the guest did to the share, or was refused.
type Event struct {
	Time time.Time `json:"time"`
	Verb Verb      `json:"verb"`
	// Path is in the share, as those of rules.Access are.
	Path string `json:"path"`
	// To is the new name of what is renamed or linked, or the target of a symbolic link.
	To string `json:"to,omitempty"`
	// Refused is that of the names which a rule was against, and empty of what was allowed. Rule and Reason are those of
	// rules.Verdict.
	Refused string `json:"refused,omitempty"`
	Rule    string `json:"rule,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// Verb is what a guest does.
type Verb string

// The verbs. A file that is only read is told of when that is refused.
const (
	Create  Verb = "create"
	Mkdir   Verb = "mkdir"
	Mknod   Verb = "mknod"
	Symlink Verb = "symlink"
	Link    Verb = "link"
	Rename  Verb = "rename"
	Swap    Verb = "exchange"
	Remove  Verb = "remove"
	Read    Verb = "read"
	Write   Verb = "write" // is opened to be written, or shortened
	Chmod   Verb = "chmod"
	Chown   Verb = "chown"
)

// Gate answers the questions of one file server.
type Gate struct {
	judge    Judge
	owner    Owner
	observe  func(Event)
	quota    *Meter // nil: the share may grow; set before armed is
	listener *listener
	callers  callers
	root     int    // of the share, O_PATH; set before armed is
	ownRoot  bool   // root is that of a mount namespace
	device   uint64 // of its file system; 0, which none has, if that is one of processes
	armed    atomic.Bool
	closed   atomic.Bool
	done     chan struct{}
	err      error

	// Of the one goroutine that answers.
	asking     uint32 // the thread whose call it is
	target     [unix.PathMax]byte
	proc       int // the file server's list of its descriptors, -1 until it is known
	procDevice uint64
}

// Open takes the listener of a file server that is being started, with the filter of [Filter], and allows all that it
// does until Arm is called. Observe, which may be nil, is told of all that is judged; the server waits until it returns.
func Open(l *os.File, judge Judge, owner Owner, observe func(Event)) (*Gate, error) {
	in, err := newListener(l)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if observe == nil {
		observe = func(Event) {}
	}
	g := &Gate{judge: judge, owner: owner, observe: observe, listener: in, root: -1, proc: -1, done: make(chan struct{})}
	g.callers = callers{listener: in, threads: map[uint32]int{}}
	go g.serve()
	return g, nil
}

// Limit makes the gate refuse, with EDQUOT, what would make the share larger than the meter allows. The server's filter must
// ask about writes. It comes before Arm.
func (g *Gate) Limit(m *Meter) { g.quota = m }

// Arm begins to judge: from now on the guest may be connected. Root is the share's directory in the mount namespace of
// the file server, of which the gate gets a descriptor of its own. The process is one of the file server's: where we
// cannot look into it, that is the error.
func (g *Gate) Arm(root *os.File, process int) error {
	if err := canLookAt(process); err != nil {
		return fmt.Errorf("looking at the file server (which may be forbidden here): %w", err)
	}
	fd, err := unix.FcntlInt(root.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	runtime.KeepAlive(root)
	if err != nil {
		return err
	}
	g.root = fd
	at, err := g.rootPath()
	device, proc, systemErr := systemOf(fd)
	if err := errors.Join(err, systemErr); err != nil {
		unix.Close(fd)
		return fmt.Errorf("looking at the share: %w", err)
	}
	g.ownRoot = at == "/"
	if !proc {
		g.device = device
	}
	g.armed.Store(true)
	return nil
}

// Done is closed when nothing is answered any more: the file server has ended, Close was called, or the gate has failed.
// What a file server asks then fails.
func (g *Gate) Done() <-chan struct{} { return g.done }

// Err tells, once Done is closed, why the gate has failed, if it has.
func (g *Gate) Err() error {
	<-g.done
	return g.err
}

// Close ends the gate.
func (g *Gate) Close() {
	g.closed.Store(true)
	g.listener.interrupt()
	<-g.done
}

func (g *Gate) serve() {
	// Its credentials are changed at times. The thread ends with it.
	runtime.LockOSThread()
	defer close(g.done)
	defer func() {
		g.listener.close() // and so all that is still asked fails
		g.callers.close()
		if g.armed.Load() {
			unix.Close(g.root)
		}
		if g.proc >= 0 {
			unix.Close(g.proc)
		}
	}()
	var n notification
	for {
		err := g.listener.receive(&n)
		if err == nil {
			err = g.answer(&n)
		}
		if err != nil {
			if !errors.Is(err, errEnd) {
				g.err = err
			}
			return
		}
	}
}

// answer returns an error if the gate cannot go on.
func (g *Gate) answer(n *notification) error {
	if setsID(n) {
		return g.listener.finish(n, g.refuseSetID(n))
	}
	if !g.armed.Load() {
		return g.listener.allow(n)
	}
	e, done := g.decide(n)
	if e == 0 && !done {
		return g.listener.allow(n)
	}
	return g.listener.finish(n, e)
}

// decide returns the error for the call, or whether it was done in its place.
func (g *Gate) decide(n *notification) (e unix.Errno, done bool) {
	g.asking = n.pid
	var err error
	if handle, ok := handlers[int(n.call)]; ok {
		done, err = handle(g, n)
	} else if charge, ok := meterers[int(n.call)]; ok && g.quota != nil {
		err = charge(g, n)
	} else {
		return unix.EPERM, false
	}
	if err == nil {
		return 0, done
	}
	if _, ok := errors.AsType[*refusedError](err); ok || errors.Is(err, errOutside) {
		return unix.EACCES, false
	}
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return errno, false
	}
	return unix.EIO, false
}

// refusedError says that a rule is against it. It has been told of.
type refusedError struct{ verdict rules.Verdict }

func (e *refusedError) Error() string { return e.verdict.Reason }

// DraftPrefix begins the names of what the gate makes. No guest does anything with them, whatever the rules are.
const DraftPrefix = ".sandbox-draft-"

// check judges, in this order, what a call does to names, and tells of it.
func (g *Gate) check(ev Event, all ...rules.Access) error {
	for _, a := range all {
		if verdict := g.verdict(a); verdict.Refused {
			g.tellRefused(ev, a.Path, verdict)
			return &refusedError{verdict}
		}
	}
	if g.quota != nil && slices.Contains(growing, ev.Verb) && !g.charge(tree.MinSize) {
		return g.full(ev, ev.Path)
	}
	if ev.Verb != Read {
		ev.Time = time.Now()
		g.observe(ev)
	}
	return nil
}

// tellRefused tells of what was refused for one of its names.
func (g *Gate) tellRefused(ev Event, path string, v rules.Verdict) {
	ev.Time, ev.Refused, ev.Rule, ev.Reason = time.Now(), path, v.Rule, v.Reason
	g.observe(ev)
}

// growing are the verbs by which there is a name more.
var growing = []Verb{Create, Mkdir, Mknod, Symlink, Link}

func (g *Gate) verdict(a rules.Access) rules.Verdict {
	if strings.Contains(a.Path, DraftPrefix) {
		return rules.Verdict{Refused: true, Rule: "draft", Reason: "it is a file that is being replaced"}
	}
	verdict := g.judge.Judge(a)
	// What has no name any more is judged by the one that it had; it can be a name that ends like that, too.
	if had, ok := strings.CutSuffix(a.Path, deleted); ok && !verdict.Refused {
		a.Path = had
		verdict = g.judge.Judge(a)
	}
	return verdict
}

// String says what happened, in a line.
func (e Event) String() string {
	text := fmt.Sprintf("%s %q", e.Verb, e.Path)
	if e.To != "" {
		text += fmt.Sprintf(" → %q", e.To)
	}
	if e.Refused != "" {
		text += fmt.Sprintf(": refused by rule %s (%s)", e.Rule, e.Reason)
	}
	return text
}
