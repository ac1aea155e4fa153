package watch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/hostdir"
	"github.com/sourcery-zone/sandbox/virtiofs/gate"
)

const (
	// MaxDirectories bounds the directories that are watched, each of which takes some 150 bytes here, and a kilobyte of
	// the kernel's.
	MaxDirectories = 65536

	// window is how long names are collected before they are told of.
	window = 100 * time.Millisecond

	// pause is how long events are left to come after some were handled, and restPart how often as long as that took.
	pause    = 20 * time.Millisecond
	restPart = 4

	// maxPending bounds the names that wait to be told of.
	maxPending = 8192

	// slack is by how much the times that a file system writes may be behind the clock.
	slack = 2 * time.Second
)

// Change is a name of the share of which the guest is to be told.
type Change struct {
	// Path is in the share, "." for its own directory. There need not be anything any more.
	Path string
	// Other says that the name may lead to something else than before, or to nothing.
	Other bool
}

// Tree watches a directory with all that is in it, or a file.
type Tree struct {
	root    *hostdir.Dir // of its own; nil: it is a file
	source  string
	file    string // the name of the file; empty: a directory
	events  *os.File
	inotify int // the number of that descriptor
	limit   int // of directories

	// Of the goroutine that handles events.
	top     *folder
	folders map[int32]*folder
	moved   map[uint32]*folder // away, by the cookie of the event that tells where to
	looked  time.Time          // when events were handled last
	round   uint               // of looking at the whole tree

	scanned  chan struct{} // closed when all is watched
	stop     chan struct{} // closed by Close
	stopOnce sync.Once
	done     chan struct{} // closed when it has ended
	news     chan struct{} // after there is something to tell

	mu       sync.Mutex
	expected expected
	pending  map[string]bool // with Change.Other
	problem  error
}

// folder is a directory that is watched.
type folder struct {
	watch  int32
	name   string
	parent *folder // nil: the share's own
	inner  map[string]*folder
	round  uint // in which it was seen
}

// path is where it is in the share.
func (f *folder) path() string {
	if f.parent == nil {
		return "."
	}
	names := []string{f.name}
	for f = f.parent; f.parent != nil; f = f.parent {
		names = append(names, f.name)
	}
	slices.Reverse(names)
	return strings.Join(names, "/")
}

// Open watches what is open, of which it gets descriptors of its own. Directories below it are watched a little later: see
// [Tree.Scanned].
func Open(dir *hostdir.Dir) (*Tree, error) { return open(dir, MaxDirectories) }

func open(dir *hostdir.Dir, limit int) (*Tree, error) {
	t, err := prepare(dir, limit)
	if err == nil {
		go t.run()
	}
	return t, err
}

// prepare opens a tree of which nobody handles the events.
func prepare(dir *hostdir.Dir, limit int) (*Tree, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		if errors.Is(err, unix.EMFILE) {
			err = errors.New("this user has as many instances of inotify as the kernel allows: raise it with sysctl fs.inotify.max_user_instances=1024")
		}
		return nil, fmt.Errorf("cannot watch %s: %w", dir.Path(), err)
	}
	t := &Tree{
		source: dir.Path(), events: os.NewFile(uintptr(fd), "inotify"), inotify: fd, limit: limit,
		folders: map[int32]*folder{}, moved: map[uint32]*folder{}, looked: time.Now(),
		scanned: make(chan struct{}), stop: make(chan struct{}), done: make(chan struct{}), news: make(chan struct{}, 1),
		expected: expected{}, pending: map[string]bool{},
	}
	if dir.IsFile() {
		t.file = path.Base(dir.Path())
	} else if t.root, err = dir.Beneath("."); err != nil {
		return nil, errors.Join(err, t.events.Close())
	}
	if t.top, err = t.watch(dir, nil, ""); err != nil {
		t.close()
		return nil, fmt.Errorf("cannot watch %s: %w", dir.Path(), err)
	}
	return t, nil
}

// Close ends it. It may be called on nil, and again.
func (t *Tree) Close() {
	if t == nil {
		return
	}
	t.stopOnce.Do(func() {
		close(t.stop)
		_ = t.events.SetReadDeadline(time.Now()) // of inotify, which can be waited for
	})
	<-t.done
}

// close gives the descriptors back, of which the numbers are others' then.
func (t *Tree) close() {
	t.events.Close()
	if t.root != nil {
		t.root.Close()
	}
}

func (t *Tree) stopped() bool {
	select {
	case <-t.stop:
		return true
	default:
		return false
	}
}

// Scanned waits until all directories are watched that were there, and returns why some are not, then or now: the others
// are.
func (t *Tree) Scanned(ctx context.Context) error {
	select {
	case <-t.scanned:
	case <-t.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.problem
}

// GuestDoes notes what the guest is about to do, of which it needs not be told.
func (t *Tree) GuestDoes(ev gate.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expected.does(ev, time.Now())
}

// Take waits for changes and returns some, as many as most, in the order of their paths. After Close, the error is
// [io.EOF].
func (t *Tree) Take(ctx context.Context, most int) ([]Change, error) {
	select {
	case <-t.news:
	case <-t.done:
		return nil, io.EOF
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	select {
	case <-time.After(window):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]Change, 0, len(t.pending))
	for p, other := range t.pending {
		list = append(list, Change{p, other})
	}
	slices.SortFunc(list, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	if len(list) > most {
		list = list[:most]
		t.wake()
	}
	for _, c := range list {
		delete(t.pending, c.Path)
	}
	return list, nil
}

func (t *Tree) wake() {
	select {
	case t.news <- struct{}{}:
	default:
	}
}

// tell notes a name that the guest is to be told of.
func (t *Tree) tell(p string, other bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before, known := t.pending[p]
	if !known && len(t.pending) >= maxPending && p != "." {
		p, other = path.Dir(p), true
		if before, known = t.pending[p]; !known && len(t.pending) >= 2*maxPending {
			p = "."
		}
	}
	t.pending[p] = before || other
	t.wake()
}

// tellName notes a name that came, went, or leads to something else, and the directory that it is in.
func (t *Tree) tellName(p string) {
	t.tell(p, true)
	t.tell(path.Dir(p), false)
}

// guests tells whether what has happened is a deed of the guest's.
func (t *Tree) guests(p string, k kind) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.expected.is(deed{p, k}, time.Now())
}

// watch begins to watch a directory, or the file, that is open.
func (t *Tree) watch(dir *hostdir.Dir, parent *folder, name string) (*folder, error) {
	mask := uint32(unix.IN_CLOSE_WRITE)
	if t.file == "" {
		mask |= unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_ONLYDIR
	}
	number, err := unix.InotifyAddWatch(t.inotify, fmt.Sprintf("/proc/self/fd/%d", dir.File().Fd()), mask)
	if err != nil {
		return nil, err
	}
	f := t.folders[int32(number)]
	if f == nil {
		if len(t.folders) >= t.limit {
			_, _ = unix.InotifyRmWatch(t.inotify, uint32(number)) // of which there is one
			return nil, unix.ENOSPC
		}
		f = &folder{watch: int32(number)}
		t.folders[f.watch] = f
	}
	if !t.put(f, parent, name) {
		return nil, fs.ErrNotExist
	}
	f.round = t.round
	return f, nil
}

// put gives a directory its place, if it is not the share's own. What is known of where others are can be newer than the
// event that tells of this one, or older than what a look has found. Where both together would be a circle, nothing is known
// any more of that directory and what is in it, and put returns false. The event by which it came to where it is comes later.
func (t *Tree) put(f, parent *folder, name string) bool {
	for above := parent; above != nil; above = above.parent {
		if above != f {
			continue
		}
		if f != t.top {
			t.forget(f)
		}
		return false
	}
	if f.parent != nil && f.parent.inner[f.name] == f { // it was moved, of which nobody told
		delete(f.parent.inner, f.name)
	}
	f.parent, f.name = parent, name
	if parent == nil {
		return true
	}
	if parent.inner == nil {
		parent.inner = map[string]*folder{}
	}
	parent.inner[name] = f
	return true
}

// forget ends the watch of a directory with what is in it.
func (t *Tree) forget(f *folder) {
	if f.parent != nil && f.parent.inner[f.name] == f {
		delete(f.parent.inner, f.name)
	}
	delete(t.folders, f.watch)
	_, _ = unix.InotifyRmWatch(t.inotify, uint32(f.watch)) // there is none of what is removed
	for _, inner := range f.inner {
		t.forget(inner)
	}
}

// fail notes the first reason for which something is not watched.
func (t *Tree) fail(err error) {
	if errors.Is(err, unix.ENOSPC) {
		err = &LimitError{Source: t.source, Watched: len(t.folders), Own: len(t.folders) >= t.limit}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.problem == nil {
		t.problem = err
	}
}

// LimitError says that not all directories of a share are watched.
type LimitError struct {
	Source  string
	Watched int
	Own     bool // it is MaxDirectories, and not what the kernel allows
}

// Error says how to change that.
func (e *LimitError) Error() string {
	why := "that is as many as this user's programs may watch: raise it with sysctl fs.inotify.max_user_watches=524288"
	if e.Own {
		why = "that is as many as can be watched: share only those in which you work"
	}
	return fmt.Sprintf("of the directories in %s only %d are watched, and the guest is not told of changes in others: %s", e.Source, e.Watched, why)
}

// scan watches a directory and what is in it, from above, and tells of the names that changed since then. Of what is gone
// meanwhile the kernel tells. It returns whether it has seen all.
func (t *Tree) scan(parent *folder, name string, since time.Time) bool {
	type place struct {
		parent *folder
		name   string
	}
	for list := []place{{parent, name}}; len(list) > 0 && !t.stopped(); list = list[1:] {
		at := list[0]
		f := t.top
		if at.parent != nil {
			at.name = path.Join(at.parent.path(), at.name)
		}
		dir, err := t.root.Beneath(at.name)
		if err == nil && at.parent != nil {
			f, err = t.watch(dir, at.parent, path.Base(at.name))
		}
		if err == nil {
			err = t.look(dir, f, since, func(name string) { list = append(list, place{f, name}) })
		}
		if dir != nil {
			dir.Close()
		}
		var link *hostdir.LinkError
		switch {
		case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR), errors.As(err, &link): // it has changed
		case errors.Is(err, fs.ErrPermission): // nor could the host's user read it
		default:
			t.fail(err)
			if errors.Is(err, unix.ENOSPC) {
				return false
			}
		}
	}
	return !t.stopped()
}

// look tells of the names in a directory that changed since then, and calls found for the directories among them.
func (t *Tree) look(dir *hostdir.Dir, f *folder, since time.Time, found func(name string)) error {
	fd, err := unix.Openat(int(dir.File().Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	open := os.NewFile(uintptr(fd), dir.Path())
	defer open.Close()
	at := f.path()
	for {
		entries, err := open.ReadDir(1024)
		for _, e := range entries {
			p := path.Join(at, e.Name())
			if e.IsDir() {
				if Skipped(p) {
					continue
				}
				found(e.Name())
			}
			if since != never && changed(fd, e.Name(), since) && !t.guests(p, created) && !t.guests(p, closed) {
				t.tellName(p)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// never is when nothing that is found has changed since.
var never = time.Unix(1<<40, 0)

func changed(dir int, name string, since time.Time) bool {
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && time.Unix(st.Ctim.Unix()).After(since)
}

// scanAll looks at the whole tree, and forgets what it does not find.
func (t *Tree) scanAll(since time.Time) {
	t.round++
	t.top.round = t.round
	if !t.scan(nil, ".", since) {
		return
	}
	for _, f := range t.folders {
		if f.round != t.round {
			t.forget(f)
		}
	}
}

func (t *Tree) run() {
	defer close(t.done)
	defer t.close()
	if t.file == "" {
		t.scanAll(never)
	}
	close(t.scanned)
	buffer := make([]byte, 64<<10)
	for {
		n, err := t.events.Read(buffer)
		if err != nil {
			return // there is no other end than Close
		}
		begun := time.Now()
		t.handle(buffer[:n])
		t.looked = begun
		// On the way, the kernel merges what is the same.
		select {
		case <-time.After(max(pause, restPart*time.Since(begun))):
		case <-t.stop:
			return
		}
	}
}

// handle takes events as the kernel has written them.
func (t *Tree) handle(data []byte) {
	before := t.moved
	t.moved = map[uint32]*folder{}
	for len(data) >= unix.SizeofInotifyEvent {
		number, mask := int32(binary.NativeEndian.Uint32(data)), binary.NativeEndian.Uint32(data[4:])
		cookie, size := binary.NativeEndian.Uint32(data[8:]), binary.NativeEndian.Uint32(data[12:])
		data = data[unix.SizeofInotifyEvent:]
		name := string(data[:size])
		data = data[size:]
		if i := strings.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		if mask&unix.IN_Q_OVERFLOW != 0 {
			t.scanAll(t.looked.Add(-slack))
			clear(before) // they were found, or forgotten
			clear(t.moved)
			continue
		}
		f := t.folders[number]
		switch {
		case f == nil: // it was forgotten
		case mask&unix.IN_IGNORED != 0:
			t.forget(f)
		case t.file != "":
			if !t.guests(t.file, closed) {
				t.tell(t.file, false)
			}
		default:
			if inner := before[cookie]; cookie != 0 && inner != nil {
				t.moved[cookie] = inner
				delete(before, cookie)
			}
			t.event(f, mask, cookie, name)
		}
	}
	for _, f := range before { // away from the share
		t.forget(f)
	}
}

// kinds are those of the kernel's events of which each is a deed.
var kinds = map[uint32]kind{unix.IN_CREATE: created, unix.IN_CLOSE_WRITE: closed, unix.IN_DELETE: removed, unix.IN_MOVED_FROM: movedFrom, unix.IN_MOVED_TO: movedTo}

// event handles one of a name in a directory.
func (t *Tree) event(f *folder, mask, cookie uint32, name string) {
	p := path.Join(f.path(), name)
	if strings.HasPrefix(name, gate.DraftPrefix) {
		return
	}
	k, ok := kinds[mask&(unix.IN_CREATE|unix.IN_CLOSE_WRITE|unix.IN_DELETE|unix.IN_MOVED_FROM|unix.IN_MOVED_TO)]
	if !ok {
		return // such as that a file system was unmounted
	}
	guests := t.guests(p, k)
	switch {
	case guests:
	case k == closed:
		t.tell(p, false)
	default:
		t.tellName(p)
	}
	if mask&unix.IN_ISDIR == 0 {
		return
	}
	inner := f.inner[name]
	switch k {
	case movedFrom:
		if inner != nil {
			delete(f.inner, name)
			t.moved[cookie] = inner
		}
	case removed:
		if inner != nil {
			t.forget(inner)
		}
	case created, movedTo:
		was := t.moved[cookie]
		delete(t.moved, cookie)
		switch {
		case Skipped(p):
			if was != nil {
				t.forget(was)
			}
		case was != nil:
			if inner != nil {
				t.forget(inner) // an empty directory, whose place it has taken
			}
			t.put(was, f, name)
		default:
			// What came into it before it was watched is not told by the kernel.
			t.scan(f, name, time.Time{})
		}
	}
}
