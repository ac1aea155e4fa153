package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/machine/layout"
)

// Event is something that happened to a sandbox.
type Event struct {
	Time    time.Time     `json:"time"`
	Sandbox string        `json:"sandbox"`
	Type    EventType     `json:"type"`
	Status  Status        `json:"status,omitempty"` // after the event; none after EventRemoved
	Reason  string        `json:"reason,omitempty"` // why it ended, or is broken; of EventShare: what has changed, and what to do
	Stage   string        `json:"stage,omitempty"`  // of EventStage
	After   time.Duration `json:"after,omitempty"`  // of EventStage: nanoseconds since the supervisor started
	From    string        `json:"from,omitempty"`   // of EventRenamed: the name before
	Share   string        `json:"share,omitempty"`  // of EventShare: the path of the directory
	Port    *GuestPort    `json:"port,omitempty"`   // of EventPortOpened and EventPortClosed

	Question *Question `json:"question,omitempty"` // of EventQuestion and EventAnswer
	Refusal  *Refusal  `json:"refusal,omitempty"`  // of EventRefused
}

// EventType is what kind of thing happened.
type EventType string

// The kinds of events.
const (
	EventExists  EventType = "exists"  // it was there when the watch began
	EventCreated EventType = "created" // it was made
	EventStatus  EventType = "status"  // its status changed
	EventStage   EventType = "stage"   // its start reached a stage
	EventRenamed EventType = "renamed" // it has another name
	EventShare   EventType = "share"   // a shared directory was replaced on this machine
	EventRemoved EventType = "removed" // it is gone

	EventPortOpened EventType = "port-opened" // a program in the guest listens on a port
	EventPortClosed EventType = "port-closed" // none does any more, while the guest goes on

	EventQuestion EventType = "question" // the user is asked whether the guest may do something
	EventAnswer   EventType = "answer"   // that question has ended

	EventRefused EventType = "refused" // a rule for a share kept the guest from something
)

// Events calls emit for every sandbox that there is, and from then on for
// everything that happens to one, until ctx is done or emit fails. With names,
// it is about these only, whether they exist already or not.
//
// The files of the sandboxes are the source, so the events of a sandbox whose
// supervisor was killed are complete too.
func (h *Host) Events(ctx context.Context, names []string, emit func(Event) error) error {
	for _, name := range names {
		if err := layout.CheckName(name); err != nil {
			return err
		}
	}
	files, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching the sandboxes: %w", err)
	}
	defer files.Close()
	if err := files.Add(h.Dirs.State); err != nil {
		return fmt.Errorf("watching the sandboxes: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &watch{ctx: ctx, host: h, names: names, emit: emit, files: files, known: map[string]*watched{}, ended: make(chan string)}
	if err := w.rescan(EventExists); err != nil {
		return err
	}
	return w.run()
}

// watch turns notifications, which may come in any order, merged or not at
// all, into events: they only say where to look.
type watch struct {
	ctx   context.Context // of the whole watch
	host  *Host
	names []string
	emit  func(Event) error
	files *fsnotify.Watcher
	known map[string]*watched
	ended chan string // names of sandboxes whose lock was given back
}

// watched is what was last seen of a sandbox.
type watched struct {
	dir     os.FileInfo
	status  Status
	started time.Time // of the start whose stages were told
	stages  int
	waiting bool // for the end of its supervisor
	shares  []ServedShare
	ports   []GuestPort
	asked   map[string]string // the IDs of questions, and how they have ended
	refused time.Time         // of the last refusal that was told
}

func (w *watch) run() error {
	for {
		var err error
		select {
		case <-w.ctx.Done():
			return nil
		case name := <-w.ended:
			if seen := w.known[name]; seen != nil {
				seen.waiting = false
				err = w.look(name)
			}
		case e := <-w.files.Events:
			switch dir, file := filepath.Split(e.Name); {
			case filepath.Clean(dir) == w.host.Dirs.State:
				err = w.rescan(EventCreated)
			case file == layout.StateFile || file == layout.ConfigFile:
				err = w.look(filepath.Base(dir))
			}
		case err = <-w.files.Errors:
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				err = errors.Join(w.rescan(EventCreated), w.lookAtAll())
			}
		}
		if err != nil {
			return err
		}
	}
}

func (w *watch) lookAtAll() error {
	var errs []error
	for name := range w.known {
		errs = append(errs, w.look(name))
	}
	return errors.Join(errs...)
}

// rescan compares the sandboxes that there are with those that are known.
func (w *watch) rescan(found EventType) error {
	all, err := w.host.List()
	if err != nil {
		return err
	}
	now := map[string]os.FileInfo{}
	var names []string
	for _, s := range all {
		// What is gone again already is as good as never seen.
		if info, err := os.Stat(s.Files().Dir()); err == nil {
			now[s.Name], names = info, append(names, s.Name)
		}
	}
	gone := map[string]*watched{}
	for name, seen := range w.known {
		if info := now[name]; info == nil || !os.SameFile(info, seen.dir) {
			gone[name] = seen
			delete(w.known, name)
			_ = w.files.Remove(filepath.Join(w.host.Dirs.State, name)) // it may have left by itself
		}
	}
	// Removals come before what may have taken the name since.
	var fresh []func() error
	for _, name := range names {
		if w.known[name] == nil {
			from := sameDir(gone, now[name])
			delete(gone, from)
			fresh = append(fresh, func() error { return w.add(name, now[name], from, found) })
		}
	}
	for name := range gone {
		if err := w.tell(Event{Sandbox: name, Type: EventRemoved}); err != nil {
			return err
		}
	}
	for _, add := range fresh {
		if err := add(); err != nil {
			return err
		}
	}
	return nil
}

// sameDir is the name under which dir was known, or none.
func sameDir(gone map[string]*watched, dir os.FileInfo) string {
	for name, seen := range gone {
		if os.SameFile(seen.dir, dir) {
			return name
		}
	}
	return ""
}

func (w *watch) add(name string, dir os.FileInfo, from string, found EventType) error {
	s := &Sandbox{Name: name, host: w.host}
	if err := w.files.Add(s.Files().Dir()); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil // its removal has a notification of its own
		}
		if errors.Is(err, unix.ENOSPC) {
			err = errors.New("the kernel allows no more inotify watches: raise the sysctl fs.inotify.max_user_watches")
		}
		return fmt.Errorf("watching the sandbox %s: %w", name, err)
	}
	st := s.State()
	seen := &watched{dir: dir, status: st.Status, started: st.Started, stages: len(st.Timings), shares: st.Shares, asked: map[string]string{}}
	for _, q := range st.Questions {
		if q.Answer != "" { // before the watch
			seen.asked[q.ID] = q.Answer
		}
	}
	for _, r := range st.Refusals {
		seen.refused = r.Time
	}
	w.known[name] = seen
	e := Event{Sandbox: name, Type: found, Status: st.Status, Reason: st.Reason}
	if from != "" {
		e.Type, e.From = EventRenamed, from
	}
	if e.Type == EventExists && inTransit(s, st) {
		e.Type = EventCreated
	}
	if e.Type == EventCreated {
		// Whatever became of it since is told after this.
		e.Status, e.Reason = StatusCreated, ""
		*seen = watched{dir: dir, status: StatusCreated}
	}
	if err := w.tell(e); err != nil {
		return err
	}
	if e.Type == EventCreated {
		return w.look(name)
	}
	w.awaitEnd(s, seen, st)
	return errors.Join(w.tellPorts(name, seen, st), w.tellQuestions(name, seen, st))
}

// look tells what has changed since the sandbox was last seen.
func (w *watch) look(name string) error {
	seen := w.known[name]
	if seen == nil {
		return nil
	}
	s := &Sandbox{Name: name, host: w.host}
	st := s.State()
	if inTransit(s, st) {
		return nil
	}
	if !st.Started.Equal(seen.started) {
		seen.started, seen.stages, seen.ports = st.Started, 0, nil
		if st.Live() && seen.status != StatusStarting {
			if err := w.tellStatus(name, seen, State{Status: StatusStarting}); err != nil {
				return err
			}
		}
	}
	for _, t := range st.Timings[min(seen.stages, len(st.Timings)):] {
		seen.stages++
		if err := w.tell(Event{Sandbox: name, Type: EventStage, Status: seen.status, Stage: t.Stage, After: t.After}); err != nil {
			return err
		}
	}
	w.awaitEnd(s, seen, st)
	if err := errors.Join(w.tellShares(name, seen, st), w.tellQuestions(name, seen, st), w.tellRefusals(name, seen, st)); err != nil {
		return err
	}
	if st.Status != seen.status {
		if err := w.tellStatus(name, seen, st); err != nil {
			return err
		}
	}
	return w.tellPorts(name, seen, st)
}

// tellPorts tells on which ports the guest has begun and ceased to listen since the
// last look. With a guest's end, that is clear.
func (w *watch) tellPorts(name string, seen *watched, st State) error {
	before := seen.ports
	seen.ports = st.Ports
	if !st.Live() {
		return nil
	}
	tell := func(kind EventType, ports, unless []GuestPort) error {
		for _, p := range ports {
			if slices.ContainsFunc(unless, func(other GuestPort) bool { return other.Number == p.Number }) {
				continue
			}
			if err := w.tell(Event{Sandbox: name, Type: kind, Status: st.Status, Port: &p}); err != nil {
				return err
			}
		}
		return nil
	}
	if err := tell(EventPortClosed, before, st.Ports); err != nil {
		return err
	}
	return tell(EventPortOpened, st.Ports, before)
}

// tellShares tells which shares have become others since the last look.
func (w *watch) tellShares(name string, seen *watched, st State) error {
	before := seen.shares
	seen.shares = st.Shares
	for i, s := range st.Shares {
		if i >= len(before) || before[i].Source != s.Source || before[i].Changed == s.Changed {
			continue // served since this start, which is no change
		}
		if err := w.tell(Event{Sandbox: name, Type: EventShare, Status: st.Status, Share: s.Source, Reason: shareChanged(name, s)}); err != nil {
			return err
		}
	}
	return nil
}

// tellQuestions tells which questions were asked and have ended since the last look.
func (w *watch) tellQuestions(name string, seen *watched, st State) error {
	before := seen.asked
	seen.asked = map[string]string{}
	for _, q := range st.Questions {
		seen.asked[q.ID] = q.Answer
		answer, known := before[q.ID]
		if asked := q; !known {
			asked.Answer = ""
			if err := w.tell(Event{Sandbox: name, Type: EventQuestion, Status: st.Status, Question: &asked}); err != nil {
				return err
			}
		}
		if q.Answer != answer {
			if err := w.tell(Event{Sandbox: name, Type: EventAnswer, Status: st.Status, Question: &q}); err != nil {
				return err
			}
		}
	}
	return nil
}

// tellRefusals tells what the guest was refused since the last look.
func (w *watch) tellRefusals(name string, seen *watched, st State) error {
	for _, r := range st.Refusals {
		if !r.Time.After(seen.refused) {
			continue
		}
		seen.refused = r.Time
		if err := w.tell(Event{Sandbox: name, Type: EventRefused, Status: st.Status, Share: r.Share, Refusal: &r}); err != nil {
			return err
		}
	}
	return nil
}

// inTransit tells whether a sandbox of which files are missing is half made or
// half removed: its lock is held then, or not there.
func inTransit(s *Sandbox, st State) bool {
	if st.Status != StatusBroken && st.Status != StatusCrashed {
		return false
	}
	_, err := os.Stat(s.Files().Path(layout.LockFile))
	return s.held() || errors.Is(err, os.ErrNotExist)
}

func (w *watch) tellStatus(name string, seen *watched, st State) error {
	seen.status = st.Status
	return w.tell(Event{Sandbox: name, Type: EventStatus, Status: st.Status, Reason: st.Reason})
}

// awaitEnd looks again when the supervisor is gone: one that was killed
// changes no file.
func (w *watch) awaitEnd(s *Sandbox, seen *watched, st State) {
	if seen.waiting || !st.Live() {
		return
	}
	seen.waiting = true
	go func() {
		// An error means that the sandbox was removed, and looking is right too.
		_ = s.Wait(w.ctx)
		select {
		case w.ended <- s.Name:
		case <-w.ctx.Done():
		}
	}()
}

func (w *watch) tell(e Event) error {
	if len(w.names) > 0 && !slices.Contains(w.names, e.Sandbox) && !slices.Contains(w.names, e.From) {
		return nil
	}
	e.Time = time.Now()
	return w.emit(e)
}

// shareChanged is what the user is told of a share that has changed.
func shareChanged(name string, s ServedShare) string {
	switch {
	case s.Changed == "" && s.File:
		return fmt.Sprintf("%s is again the file that the guest has", s.Source)
	case s.Changed == "":
		return fmt.Sprintf("%s is again the directory that the guest has", s.Source)
	case s.File:
		return fmt.Sprintf("%s %s, but the guest has the old one until it is started again: sandbox restart %s", s.Source, s.Changed, name)
	}
	return fmt.Sprintf("%s %s, but the guest has the old directory until it is started again: sandbox share accept %s %[1]s && sandbox restart %[3]s", s.Source, s.Changed, name)
}
