package watch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/hostdir"
	"github.com/sourcery-zone/sandbox/virtiofs/gate"
)

// watched is a directory that is watched.
type watched struct {
	*Tree
	t    *testing.T
	path string
	told []string // what Take returned, and was not waited for
}

func watchDir(t *testing.T, limit int, dirs ...string) *watched {
	t.Helper()
	at, err := hostdir.Resolve(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{t: t, path: at}
	for _, dir := range dirs {
		w.do(os.MkdirAll(w.at(dir), 0o755))
	}
	dir, err := hostdir.Open(at)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if w.Tree, err = open(dir, limit); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func (w *watched) at(name string) string { return filepath.Join(w.path, name) }

func (w *watched) do(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *watched) write(name string) {
	w.t.Helper()
	w.do(os.WriteFile(w.at(name), []byte(name), 0o644))
}

// until takes what is told until that is told, and returns all that was told since the last time. A change that leads to
// something else has a star.
func (w *watched) until(want string) []string {
	w.t.Helper()
	for {
		if i := slices.Index(w.told, want); i >= 0 {
			told := w.told
			w.told = nil
			return told
		}
		list, err := w.Take(w.t.Context(), 100)
		w.do(err)
		for _, c := range list {
			text := c.Path
			if c.Other {
				text += "*"
			}
			w.told = append(w.told, text)
		}
	}
}

// exactly waits until all of that was told, and nothing else was: the last change is one that is made now.
func (w *watched) exactly(want ...string) {
	w.t.Helper()
	w.write("end")
	told := w.until("end*")
	for _, w := range []string{"end*", "."} {
		if i := slices.Index(told, w); i >= 0 && !slices.Contains(want, w) {
			told = slices.Delete(told, i, i+1)
		}
	}
	slices.Sort(told)
	slices.Sort(want)
	if told = slices.Compact(told); !slices.Equal(told, want) {
		w.t.Errorf("told of %q, want %q", told, want)
	}
	w.do(os.Remove(w.at("end")))
	w.settle()
}

// settle waits until the kernel's events up to now were handled.
func (w *watched) settle() {
	w.t.Helper()
	name := fmt.Sprintf("settle%d", time.Now().UnixNano())
	w.write(name)
	w.until(name + "*")
	w.GuestDoes(gate.Event{Verb: gate.Remove, Path: name})
	w.do(os.Remove(w.at(name)))
}

func TestChangesAreTold(t *testing.T) {
	w := watchDir(t, MaxDirectories, "dir/inner", "node_modules/x", ".git/objects/00", "empty")
	w.do(w.Scanned(t.Context()))
	w.write("dir/inner/file")
	w.exactly("dir/inner", "dir/inner/file*")
	w.write("dir/inner/file")
	w.exactly("dir/inner/file")
	w.do(os.Rename(w.at("dir/inner/file"), w.at("dir/moved")))
	w.exactly("dir/inner", "dir/inner/file*", "dir", "dir/moved*")
	w.do(os.Remove(w.at("dir/moved")))
	w.exactly("dir", "dir/moved*")
	w.do(os.Symlink("/etc/passwd", w.at("dir/link")))
	w.exactly("dir", "dir/link*")
	// A directory under another name is watched there, and not here.
	w.do(os.Rename(w.at("dir"), w.at("other")))
	w.exactly("dir*", "other*", ".")
	w.write("other/inner/file")
	w.exactly("other/inner", "other/inner/file*")
	// What nobody is to be told of.
	w.write("node_modules/x/file")
	w.write(".git/objects/00/file")
	w.do(os.Chmod(w.at("other/inner/file"), 0o600))
	w.do(os.Chtimes(w.at("other/inner/file"), time.Now(), time.Now()))
	if _, err := os.ReadFile(w.at("other/inner/file")); err != nil {
		t.Error(err)
	}
	w.exactly()
	w.write(".git/HEAD")
	w.exactly(".git", ".git/HEAD*")
	// Away from the share, nothing of it is watched.
	outside := filepath.Join(t.TempDir(), "away")
	w.do(os.Rename(w.at("other"), outside))
	w.exactly("other*", ".")
	w.do(os.WriteFile(filepath.Join(outside, "inner", "file"), nil, 0o644))
	w.exactly()
	w.do(os.RemoveAll(w.at("empty")))
	w.exactly("empty*", ".")
}

// Directories that are made and filled at once are told of as a whole.
func TestWhatComesBeforeItIsWatchedIsTold(t *testing.T) {
	w := watchDir(t, MaxDirectories)
	w.do(w.Scanned(t.Context()))
	for i := range 20 {
		dir := fmt.Sprintf("a%d/b/c", i)
		w.do(os.MkdirAll(w.at(dir), 0o755))
		w.write(dir + "/file")
	}
	want := map[string]bool{}
	for i := range 20 {
		want[fmt.Sprintf("a%d/b/c/file*", i)] = true
	}
	for len(want) > 0 {
		for p := range want {
			for _, told := range w.until(p) {
				delete(want, told)
			}
			break
		}
	}
	for i := range 20 {
		w.write(fmt.Sprintf("a%d/b/c/file", i))
		w.until(fmt.Sprintf("a%d/b/c/file", i))
	}
}

// What the guest does it knows by itself.
func TestTheGuestsOwnDoingIsNotTold(t *testing.T) {
	w := watchDir(t, MaxDirectories, "dir")
	w.do(w.Scanned(t.Context()))
	does := func(verb gate.Verb, p, to string, do func() error) {
		t.Helper()
		w.GuestDoes(gate.Event{Verb: verb, Path: p, To: to})
		w.do(do())
	}
	write := func(p string) func() error {
		return func() error { return os.WriteFile(w.at(p), []byte(p), 0o644) }
	}
	does(gate.Create, "dir/file", "", write("dir/file"))
	w.exactly()
	does(gate.Write, "dir/file", "", write("dir/file"))
	does(gate.Symlink, "dir/link", "file", func() error { return os.Symlink("file", w.at("dir/link")) })
	does(gate.Link, "dir/file", "dir/second", func() error { return os.Link(w.at("dir/file"), w.at("dir/second")) })
	does(gate.Rename, "dir/second", "third", func() error { return os.Rename(w.at("dir/second"), w.at("third")) })
	does(gate.Swap, "dir/file", "third", func() error {
		return unix.Renameat2(unix.AT_FDCWD, w.at("dir/file"), unix.AT_FDCWD, w.at("third"), unix.RENAME_EXCHANGE)
	})
	does(gate.Remove, "third", "", func() error { return os.Remove(w.at("third")) })
	w.exactly()
	does(gate.Mkdir, "new", "", func() error { return os.Mkdir(w.at("new"), 0o755) })
	w.exactly()
	// The host's changes of the same names are told, each of them, before and after the guest's.
	w.write("dir/file")
	w.exactly("dir/file")
	w.write("new/file")
	w.exactly("new", "new/file*")
	w.do(os.Remove(w.at("dir/file")))
	w.exactly("dir", "dir/file*")
	// What was refused does not happen: the host's change is not taken for it.
	w.GuestDoes(gate.Event{Verb: gate.Write, Path: "new/file", Refused: "new/file"})
	w.write("new/file")
	w.exactly("new/file")
}

// prepare makes a tree of the directory of which nobody takes events.
func (w *watched) prepare() *Tree {
	w.t.Helper()
	dir, err := hostdir.Open(w.path)
	w.do(err)
	w.t.Cleanup(func() { dir.Close() })
	tree, err := prepare(dir, MaxDirectories)
	w.do(err)
	w.t.Cleanup(func() { tree.close() })
	tree.scanAll(never)
	return tree
}

// When the kernel drops events, what has changed since is looked for.
func TestLostEventsAreMadeUpFor(t *testing.T) {
	w := watchDir(t, MaxDirectories, "old/inner", "gone/inner")
	w.write("old/same")
	w.write("old/changed")
	w.Close()
	tree := w.prepare()
	last := ctime(t, w.at("old/changed"))
	tree.looked = last.Add(slack)
	w.do(os.RemoveAll(w.at("gone")))
	w.do(os.MkdirAll(w.at("new/inner"), 0o755))
	tree.GuestDoes(gate.Event{Verb: gate.Create, Path: "old/guests"})
	for _, name := range []string{"old/changed", "old/guests", "old/inner/file", "new/inner/file"} {
		for w.write(name); !ctime(t, w.at(name)).After(last); w.write(name) { // by a clock that stands for milliseconds
		}
	}
	for _, name := range []string{"gone", "old/inner/file"} {
		tree.tell(name, true) // is told once, although it was known before
	}
	overflow := make([]byte, unix.SizeofInotifyEvent)
	binary.NativeEndian.PutUint32(overflow[4:], unix.IN_Q_OVERFLOW)
	tree.handle(overflow)
	list, err := tree.Take(t.Context(), 100)
	w.do(err)
	var told []string
	for _, c := range list {
		told = append(told, c.Path)
	}
	want := []string{".", "gone", "new", "new/inner", "new/inner/file", "old", "old/changed", "old/inner", "old/inner/file"}
	if !slices.Equal(told, want) {
		t.Errorf("told of %q, want %q", told, want)
	}
	if n := watches(t, tree); n != len(tree.folders) || n != 5 {
		t.Errorf("there are %d watches, and %d directories", n, len(tree.folders))
	}
}

// The guest can have the kernel drop events, so that the whole tree is looked at, and move directories before that is done:
// the events of that are older than what is known then. Two directories of which each was in the other are in no circle.
func TestMovesThatAreOlderThanTheLook(t *testing.T) {
	for name, moves := range map[string][][2]string{
		"into each other":     {{"a", "b/a"}, {"b/a", "a"}, {"b", "a/b"}},
		"by way of a third":   {{"a", "c/a"}, {"c", "b/c"}, {"b/c/a", "a"}, {"b", "a/b"}},
		"with another's name": {{"a", "old"}, {"b", "a"}, {"old", "a/old"}, {"a/old", "b"}, {"a", "b/a"}},
	} {
		t.Run(name, func(t *testing.T) {
			at, err := hostdir.Resolve(t.TempDir())
			w := &watched{t: t, path: at}
			w.do(err)
			for _, dir := range []string{"a/inner", "b/inner", "c"} {
				w.do(os.MkdirAll(w.at(dir), 0o755))
			}
			tree := w.prepare()
			for _, move := range moves {
				w.do(os.Rename(w.at(move[0]), w.at(move[1])))
			}
			handle := func() {
				t.Helper()
				events := make([]byte, 64<<10)
				n, err := unix.Read(tree.inotify, events)
				w.do(err)
				tree.handle(events[:n])
			}
			tree.scanAll(never)
			handle()
			// What is there is watched, wherever it was.
			w.do(filepath.WalkDir(w.path, func(path string, d os.DirEntry, err error) error {
				if err != nil || !d.IsDir() {
					return err
				}
				return os.WriteFile(path+"/file", nil, 0o644)
			}))
			handle()
			list, err := tree.Take(t.Context(), 100)
			w.do(err)
			told := map[string]bool{}
			for _, c := range list {
				told[c.Path] = true
			}
			w.do(filepath.WalkDir(w.path, func(path string, d os.DirEntry, err error) error {
				if rel, _ := filepath.Rel(w.path, path); err == nil && !d.IsDir() && !told[rel] {
					t.Errorf("%s is not told of, but %+v", rel, list)
				}
				return err
			}))
			if n := watches(t, tree); n != len(tree.folders) || n != 6 {
				t.Errorf("there are %d watches, and %d directories", n, len(tree.folders))
			}
		})
	}
}

func ctime(t *testing.T, name string) time.Time {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		t.Fatal(err)
	}
	return time.Unix(st.Ctim.Unix())
}

// However many names change, so many wait to be told at most.
func TestWhatWaitsIsBounded(t *testing.T) {
	w := watchDir(t, MaxDirectories)
	for i := range 3 * maxPending {
		w.tell(fmt.Sprintf("dir%d/file", i), false)
	}
	for i := range maxPending {
		w.tell(fmt.Sprintf("dir/file%d", i), false)
	}
	n := 0
	told := map[string]bool{}
	for !told["dir0/file"] || !told[fmt.Sprintf("dir%d", maxPending)] || !told["."] || !told[fmt.Sprintf("dir%d/file", maxPending-1)] {
		list, err := w.Take(t.Context(), 1000)
		w.do(err)
		for _, c := range list {
			told[c.Path] = true
		}
		n += len(list)
	}
	if n > 2*maxPending+1 {
		t.Errorf("%d waited", n)
	}
}

func TestLimitOfDirectories(t *testing.T) {
	w := watchDir(t, 3, "a/b/c/d", "e")
	err := w.Scanned(t.Context())
	var limit *LimitError
	if !errors.As(err, &limit) || limit.Watched != 3 || !strings.Contains(err.Error(), "of the directories in "+w.path+" only 3 are watched") {
		t.Fatalf("%v", err)
	}
	// The upper ones are, and still are when all is looked at once more.
	w.Close()
	dir, err := hostdir.Open(w.path)
	w.do(err)
	defer dir.Close()
	tree, err := prepare(dir, 3)
	w.do(err)
	tree.scanAll(never)
	tree.scanAll(never)
	if n := watches(t, tree); n != 3 || len(tree.folders) != 3 {
		t.Errorf("there are %d watches, and %d directories", n, len(tree.folders))
	}
	w.Tree = tree
	go tree.run()
	for _, dir := range []string{".", "a", "e"} {
		w.write(path.Join(dir, "file"))
		w.until(path.Join(dir, "file") + "*")
	}
}

// A guest that plants a link, where the host is about to look for a directory, does not lead it away.
func TestLinksAreNotFollowed(t *testing.T) {
	outside := t.TempDir()
	w := watchDir(t, MaxDirectories, "dir")
	w.do(w.Scanned(t.Context()))
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			name := w.at("dir/x")
			_ = os.Mkdir(name, 0o755)
			_ = os.Remove(name)
			_ = os.Symlink(outside, name)
			_ = os.Remove(name)
		}
	}()
	for range 20 {
		w.until("dir/x*")
	}
	close(stop)
	<-ended
	w.do(os.Symlink(outside, w.at("dir/x")))
	w.settle()
	w.do(os.WriteFile(filepath.Join(outside, "file"), nil, 0o644))
	w.write("dir/end")
	for _, told := range w.until("dir/end*") {
		if strings.HasPrefix(told, "dir/x/") {
			t.Errorf("told of %s", told)
		}
	}
	if n := watches(t, w.Tree); n != 2 {
		t.Errorf("there are %d watches of 2 directories", n)
	}
}

// watches are those that the kernel has.
func watches(t *testing.T, tree *Tree) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", tree.inotify))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(data), "inotify wd:")
}

func TestASingleFile(t *testing.T) {
	at, err := hostdir.Resolve(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{t: t, path: at}
	w.write("file")
	file, err := hostdir.OpenFile(w.at("file"))
	w.do(err)
	defer file.Close()
	w.Tree, err = Open(file)
	w.do(err)
	defer w.Close()
	w.do(w.Scanned(t.Context()))
	w.GuestDoes(gate.Event{Verb: gate.Write, Path: "file"})
	w.write("file")
	for w.expects() { // or the kernel makes one of two events that are the same
		time.Sleep(time.Millisecond)
	}
	w.write("beside")
	w.write("file")
	w.until("file")
}

// expects tells whether the event of something that the guest does is still to come.
func (w *watched) expects() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.expected) > 0
}
