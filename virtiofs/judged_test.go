package virtiofs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/confine"
	"github.com/sourcery-zone/sandbox/internal/process"
	"github.com/sourcery-zone/sandbox/virtiofs/gate"
	"github.com/sourcery-zone/sandbox/virtiofs/rules"
	"github.com/sourcery-zone/sandbox/virtiofs/virtiofstest"
)

// testJudge has simple rules: nobody writes what is called "frozen" or is below it, nobody reads "hidden", and what gets the
// name "judged" is good if its content says so.
type testJudge struct{}

func (testJudge) Hides() bool { return true }

func (testJudge) WantsContent(name string) bool {
	return path.Base(name) == "judged" || path.Base(name) == "key"
}

func (j testJudge) Judge(a rules.Access) rules.Verdict {
	no := rules.Verdict{Refused: true, Rule: "test", Reason: "it is a test"}
	switch {
	case path.Base(a.Path) == "hidden":
		return no
	case path.Base(a.Path) == "key" && a.Content != nil:
		if data, err := a.Content(); err != nil || bytes.HasPrefix(data, []byte("secret")) {
			return no
		}
	case a.Operation == rules.Read:
	case strings.Contains("/"+a.Path+"/", "/frozen/"):
		return no
	case j.WantsContent(a.Path):
		if a.Operation != rules.Make || a.Content == nil {
			return no
		}
		data, err := a.Content()
		if err != nil || !bytes.HasPrefix(data, []byte("good")) {
			return no
		}
	}
	return rules.Verdict{}
}

// events is what a gate told.
type events struct {
	mu   sync.Mutex
	list []string
}

func (e *events) add(ev gate.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, ev.String())
}

// take returns what was told since it was asked last.
func (e *events) take() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	text := strings.Join(e.list, "\n")
	e.list = nil
	return text
}

// fill makes the directories and files of the tests, all of the owner.
func fill(t *testing.T, dir string, uid int) {
	t.Helper()
	script := `set -e; cd "$1"; mkdir frozen dir dir/frozen; for f in frozen/file dir/frozen/file file other hidden dir/judged "dir/hidden (deleted)" dir/key; do echo old >"$f"; done
		echo secret >key; chmod 600 key
		chown -R "$2" .`
	if out, err := exec.Command("sh", "-c", script, "sh", dir, strconv.Itoa(uid)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func connect(t *testing.T, socket string) *virtiofstest.Guest {
	t.Helper()
	g, err := virtiofstest.Connect(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// guest is one whose methods name files by their paths. It looks each up again, as a kernel does that remembers nothing.
type guest struct {
	*virtiofstest.Guest
	t *testing.T
}

func (g guest) node(name string) uint64 {
	g.t.Helper()
	node, err := g.Walk(strings.Split(name, "/")...)
	if err != nil {
		g.t.Fatalf("looking up %s: %v", name, err)
	}
	return node
}

func (g guest) dir(name string) (uint64, string) {
	g.t.Helper()
	dir, base := path.Split(name)
	if dir == "" {
		return virtiofstest.Root, base
	}
	return g.node(strings.TrimSuffix(dir, "/")), base
}

func (g guest) create(name string) error {
	dir, base := g.dir(name)
	file, handle, err := g.Create(dir, base, unix.O_WRONLY)
	if err != nil {
		return err
	}
	return g.Release(file, handle)
}

func (g guest) open(name string, flags int) error {
	file := g.node(name)
	handle, err := g.Open(file, flags)
	if err != nil {
		return err
	}
	return g.Release(file, handle)
}

func (g guest) write(name, text string) error {
	file := g.node(name)
	handle, err := g.Open(file, unix.O_WRONLY|unix.O_TRUNC)
	if err != nil {
		return err
	}
	return errors.Join(g.Write(file, handle, 0, []byte(text)), g.Release(file, handle))
}

func (g guest) rename(from, to string, flags uint32) error {
	d, n := g.dir(from)
	e, m := g.dir(to)
	return g.Rename(d, n, e, m, flags)
}

func (g guest) link(from, to string) error {
	d, n := g.dir(to)
	return g.Link(g.node(from), d, n)
}

func (g guest) unlink(name string) error {
	d, n := g.dir(name)
	return g.Unlink(d, n)
}

func (g guest) mkdir(name string) error {
	d, n := g.dir(name)
	_, err := g.Mkdir(d, n)
	return err
}

func (g guest) symlink(name, target string) error {
	d, n := g.dir(name)
	_, err := g.Symlink(d, n, target)
	return err
}

func (g guest) mknod(name string, mode uint32) error {
	d, n := g.dir(name)
	_, err := g.Mknod(d, n, mode, 0)
	return err
}

func (g guest) setattr(name string, a virtiofstest.Attr) error { return g.Setattr(g.node(name), a) }

// attacks are all that a guest can ask for, with what it is told. They are made in this order, on what fill has made.
var attacks = []struct {
	name string
	do   func(guest) error
	want unix.Errno // 0: it may
}{
	{"create", func(g guest) error { return g.create("new") }, 0},
	{"create in a new directory", func(g guest) error { return errors.Join(g.mkdir("sub"), g.mkdir("sub2"), g.create("sub/new")) }, 0},
	{"write", func(g guest) error { return g.write("file", "x") }, 0},
	{"read", func(g guest) error { return g.open("file", unix.O_RDONLY) }, 0},
	{"remove", func(g guest) error { return g.unlink("sub/new") }, 0},
	{"rename", func(g guest) error { return g.rename("new", "sub/new", 0) }, 0},
	{"exchange", func(g guest) error { return g.rename("file", "other", unix.RENAME_EXCHANGE) }, 0},
	{"link", func(g guest) error { return g.link("file", "sub/link") }, 0},
	{"symbolic link", func(g guest) error { return g.symlink("sub/symlink", "../frozen/file") }, 0},
	{"mode", func(g guest) error { return g.setattr("file", virtiofstest.Attr{Mode: new(uint32(0o640))}) }, 0},
	{"owner", func(g guest) error {
		return g.setattr("file", virtiofstest.Attr{UID: new(uint32(1)), GID: new(uint32(1))})
	}, 0},
	{"shorten", func(g guest) error { return g.setattr("file", virtiofstest.Attr{Size: new(uint64(0))}) }, 0},
	{"times", func(g guest) error { return g.setattr("file", virtiofstest.Attr{MTime: new(uint64(1))}) }, 0},
	{"fifo", func(g guest) error { return g.mknod("fifo", unix.S_IFIFO|0o644) }, 0},
	{"read what is frozen", func(g guest) error { return g.open("frozen/file", unix.O_RDONLY) }, 0},

	{"write", func(g guest) error { return g.write("frozen/file", "x") }, unix.EACCES},
	{"write deep below", func(g guest) error { return g.write("dir/frozen/file", "x") }, unix.EACCES},
	{"open for both", func(g guest) error { return g.open("frozen/file", unix.O_RDWR) }, unix.EACCES},
	{"open to append", func(g guest) error { return g.open("frozen/file", unix.O_WRONLY|unix.O_APPEND) }, unix.EACCES},
	{"open to read and shorten", func(g guest) error { return g.open("frozen/file", unix.O_RDONLY|unix.O_TRUNC) }, unix.EACCES},
	{"create over it", func(g guest) error { return g.create("frozen/file") }, unix.EACCES},
	{"create", func(g guest) error { return g.create("frozen/new") }, unix.EACCES},
	{"create by mknod", func(g guest) error { return g.mknod("frozen/new", unix.S_IFREG|0o755) }, unix.EACCES},
	{"make a directory", func(g guest) error { return g.mkdir("frozen/new") }, unix.EACCES},
	{"make it itself", func(g guest) error { return g.mkdir("sub/frozen") }, unix.EACCES},
	{"make it as a symbolic link", func(g guest) error { return g.symlink("sub/frozen", "..") }, unix.EACCES},
	{"make it as a fifo", func(g guest) error { return g.mknod("sub/frozen", unix.S_IFIFO|0o644) }, unix.EACCES},
	{"symbolic link within", func(g guest) error { return g.symlink("frozen/new", "../file") }, unix.EACCES},
	{"remove", func(g guest) error { return g.unlink("frozen/file") }, unix.EACCES},
	{"remove it itself", func(g guest) error { return g.Rmdir(virtiofstest.Root, "frozen") }, unix.EACCES},
	{"rename it away", func(g guest) error { return g.rename("frozen", "thawed", 0) }, unix.EACCES},
	{"rename a file away", func(g guest) error { return g.rename("frozen/file", "thawed", 0) }, unix.EACCES},
	{"rename over", func(g guest) error { return g.rename("file", "frozen/file", 0) }, unix.EACCES},
	{"rename into", func(g guest) error { return g.rename("file", "frozen/new", unix.RENAME_NOREPLACE) }, unix.EACCES},
	{"rename a directory to", func(g guest) error { return g.rename("sub", "sub2/frozen", 0) }, unix.EACCES},
	{"exchange", func(g guest) error { return g.rename("file", "frozen/file", unix.RENAME_EXCHANGE) }, unix.EACCES},
	{"exchange the other way", func(g guest) error { return g.rename("frozen/file", "file", unix.RENAME_EXCHANGE) }, unix.EACCES},
	{"leave a whiteout", func(g guest) error { return g.rename("file", "white", unix.RENAME_WHITEOUT) }, unix.EINVAL},
	{"link into", func(g guest) error { return g.link("file", "frozen/new") }, unix.EACCES},
	{"link out of", func(g guest) error { return g.link("frozen/file", "thawed") }, unix.EACCES},
	{"mode", func(g guest) error { return g.setattr("frozen/file", virtiofstest.Attr{Mode: new(uint32(0o755))}) }, unix.EACCES},
	{"owner", func(g guest) error { return g.setattr("frozen/file", virtiofstest.Attr{UID: new(uint32(1))}) }, unix.EACCES},
	{"shorten", func(g guest) error { return g.setattr("frozen/file", virtiofstest.Attr{Size: new(uint64(0))}) }, unix.EACCES},
	{"extended attributes", func(g guest) error { return g.Setxattr(g.node("file"), "user.x", []byte("x")) }, unix.ENOSYS},
	{"file without a name", func(g guest) error { return g.open("dir", unix.O_TMPFILE|unix.O_RDWR) }, unix.EOPNOTSUPP},
	{"device", func(g guest) error { return g.mknod("device", unix.S_IFCHR|0o644) }, unix.EPERM},
	{"set-uid bit", func(g guest) error { return g.setattr("file", virtiofstest.Attr{Mode: new(uint32(0o4755))}) }, unix.EPERM},

	// What no kernel sends.
	{"name of two parts", func(g guest) error { _, err := g.Mkdir(virtiofstest.Root, "sub/new"); return err }, unix.EINVAL},
	{"name through a symbolic link", func(g guest) error {
		return errors.Join(g.symlink("by", "dir"), func() error { _, _, err := g.Create(virtiofstest.Root, "by/new", unix.O_WRONLY); return err }())
	}, unix.EINVAL},
	{"name that goes up", func(g guest) error { return g.Unlink(g.node("dir"), "../frozen/file") }, unix.EINVAL},
	{"parent", func(g guest) error { return g.Rmdir(g.node("dir"), "..") }, unix.EINVAL},
	{"rename to a name of two parts", func(g guest) error {
		return g.Rename(virtiofstest.Root, "file", g.node("dir"), "../frozen/file", 0)
	}, unix.EINVAL},
	{"look-up by a name of two parts", func(g guest) error {
		file, err := g.Lookup(virtiofstest.Root, "sub/symlink")
		if err != nil {
			return err
		}
		_, err = g.Open(file, unix.O_RDWR)
		return err
	}, unix.EBADF}, // a symbolic link is not opened
	{"look-up through a symbolic link", func(g guest) error {
		file, err := g.Lookup(virtiofstest.Root, "by/frozen/file")
		if err != nil {
			return err
		}
		_, err = g.Open(file, unix.O_RDWR)
		return err
	}, unix.EACCES},

	{"read what is hidden", func(g guest) error { return g.open("hidden", unix.O_RDONLY) }, unix.EACCES},
	{"write what is hidden", func(g guest) error { return g.open("hidden", unix.O_WRONLY) }, unix.EACCES},
	{"link what is hidden", func(g guest) error { return g.link("hidden", "shown") }, unix.EACCES},
	{"rename what is hidden", func(g guest) error { return g.rename("hidden", "shown", 0) }, unix.EACCES},
	{"read what looks like deleted and hidden", func(g guest) error { return g.open("dir/hidden (deleted)", unix.O_RDONLY) }, unix.EACCES},

	{"read what is no key", func(g guest) error { return g.open("dir/key", unix.O_RDONLY) }, 0},
	{"read a key", func(g guest) error { return g.open("key", unix.O_RDONLY) }, unix.EACCES},
	{"write a key", func(g guest) error { return g.open("key", unix.O_RDWR) }, unix.EACCES},
	{"rename a key", func(g guest) error { return g.rename("key", "nokey", 0) }, unix.EACCES},
	{"remove a key", func(g guest) error { return g.unlink("key") }, unix.EACCES},
	{"write what is judged by content", func(g guest) error { return g.write("dir/judged", "good") }, unix.EACCES},
	{"create it", func(g guest) error { return g.create("sub/judged") }, unix.EACCES},
	{"link to it", func(g guest) error { return g.link("file", "sub/judged") }, unix.EACCES},
	{"rename a bad one", func(g guest) error { return errors.Join(g.write("file", "bad"), g.rename("file", "dir/judged", 0)) }, unix.EACCES},
	{"rename a symbolic link", func(g guest) error { return g.rename("sub/symlink", "dir/judged", 0) }, unix.EACCES},
	{"exchange it", func(g guest) error { return g.rename("file", "dir/judged", unix.RENAME_EXCHANGE) }, unix.EACCES},
	{"rename a good one", func(g guest) error { return errors.Join(g.write("file", "good"), g.rename("file", "dir/judged", 0)) }, 0},
	{"rename a good one to nothing", func(g guest) error {
		return errors.Join(g.create("draft"), g.write("draft", "good"), g.rename("draft", "sub/judged", unix.RENAME_NOREPLACE))
	}, 0},
	{"touch what is being replaced", func(g guest) error { return g.create(".sandbox-draft-x") }, unix.EACCES},
}

func attack(t *testing.T, g guest, told *events) {
	for _, a := range attacks {
		err := a.do(g)
		said := told.take()
		if a.want == 0 && err != nil || a.want != 0 && !errors.Is(err, a.want) {
			t.Errorf("%s: %v, want %v (%s)", a.name, err, a.want, said)
		}
	}
}

// checkAttacked looks at what has become of the directory.
func checkAttacked(t *testing.T, dir string, uid int) {
	t.Helper()
	for name, want := range map[string]string{"frozen/file": "old\n", "dir/frozen/file": "old\n", "hidden": "old\n", "dir/judged": "good", "sub/judged": "good"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); string(got) != want || err != nil {
			t.Errorf("%s holds %q, %v", name, got, err)
		}
	}
	for name, want := range map[string]int{"frozen": 1, "dir/frozen": 1} {
		if list, err := os.ReadDir(filepath.Join(dir, name)); len(list) != want || err != nil {
			t.Errorf("%s has %v, %v", name, list, err)
		}
	}
	err := filepath.WalkDir(dir, func(name string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if strings.HasPrefix(filepath.Base(name), ".sandbox") {
			t.Errorf("%s is left", name)
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil || int(st.Uid) != uid {
			t.Errorf("%s belongs to user %d, %v", name, st.Uid, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func skipWithoutGate(t *testing.T, err error) {
	t.Helper()
	if _, ok := errors.AsType[*GateError](err); ok {
		t.Skip(err)
	}
}

func TestJudgedGuestGetsNoFurther(t *testing.T) {
	uids := []int{os.Geteuid()}
	if uids[0] == 0 {
		uids = append(uids, nobody)
	}
	for _, uid := range uids {
		c, told := realConfig(t, uid), &events{}
		fill(t, c.Directory.Path(), uid)
		c.Judge, c.Judged = testJudge{}, told.add
		s, err := realDaemon(t).Start(t.Context(), c)
		skipWithoutGate(t, err)
		if err != nil {
			t.Fatal(err)
		}
		t.Log("isolation:", s.Isolation())
		g := connect(t, c.Socket)
		attack(t, guest{g, t}, told)
		checkAttacked(t, c.Directory.Path(), uid)
		g.Close()
		await(t, s.Done())
		if err := s.Err(); err != nil {
			t.Error(err)
		}
	}
}

// The gate is in a process of an ordinary user, or one for which user namespaces are closed.
func TestJudgedInEachIsolation(t *testing.T) {
	needRoot(t)
	for name, tt := range map[string]struct {
		uid          int // of who starts virtiofsd
		noNamespaces bool
		attr         *syscall.SysProcAttr
	}{
		"ordinary user":               {nobody, false, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}},
		"root without namespaces":     {0, true, inNamespace(0, nobody)},
		"ordinary user without those": {nobody, true, inNamespace(0, nobody)},
	} {
		t.Run(name, func(t *testing.T) {
			order := helperOrder{Daemon: realDaemon(t), Config: realConfig(t, tt.uid), Judged: true, NoNamespaces: tt.noNamespaces}
			if tt.noNamespaces {
				order.UID = tt.uid
			}
			order.Config.AllowUnconfined = true
			fill(t, order.Config.Directory.Path(), tt.uid)
			h := startHelper(t, order, tt.attr)
			if h.Error != "" {
				t.Fatal(h.Error)
			}
			t.Log("isolation:", h.Isolation)
			g := connect(t, order.Config.Socket)
			attack(t, guest{g, t}, &events{})
			checkAttacked(t, order.Config.Directory.Path(), tt.uid)
		})
	}
}

// judged starts a server for a directory that fill has made, and connects a guest.
func judged(t *testing.T, told *events) (guest, string) {
	t.Helper()
	c := realConfig(t, os.Geteuid())
	fill(t, c.Directory.Path(), os.Geteuid())
	return serveJudged(t, c, told), c.Directory.Path()
}

func serveJudged(t *testing.T, c ServerConfig, told *events) guest {
	t.Helper()
	c.Judge, c.Judged = testJudge{}, told.add
	s, err := realDaemon(t).Start(t.Context(), c)
	skipWithoutGate(t, err)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return guest{connect(t, c.Socket), t}
}

// What was judged by its content cannot be written afterwards, neither by a descriptor nor by another name.
func TestJudgedContentStays(t *testing.T) {
	told := &events{}
	g, dir := judged(t, told)
	if err := g.write("file", "good"); err != nil {
		t.Fatal(err)
	}
	file := g.node("file")
	handle, err := g.Open(file, unix.O_RDWR)
	if err := errors.Join(err, g.link("file", "second"), g.rename("file", "dir/judged", 0)); err != nil {
		t.Fatal(err)
	}
	told.take()
	if err := errors.Join(g.Write(file, handle, 0, []byte("evil")), g.write("second", "evil"), g.Setattr(file, virtiofstest.Attr{Mode: new(uint32(0o777))})); err != nil {
		t.Errorf("the guest's own file: %v", err)
	}
	if got, err := os.ReadFile(dir + "/dir/judged"); string(got) != "good" || err != nil {
		t.Errorf("what was judged holds %q now, %v", got, err)
	}
	if _, err := g.Lookup(virtiofstest.Root, "file"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("the old name is still there: %v", err)
	}
}

// A guest renames, all the time, what another guest's open file is to become.
func TestJudgedContentOfTwoGuests(t *testing.T) {
	told := &events{}
	c := realConfig(t, os.Geteuid())
	fill(t, c.Directory.Path(), os.Geteuid())
	first := serveJudged(t, c, told)
	c.Socket += "2"
	second := serveJudged(t, c, told)
	dir := c.Directory.Path()
	if err := errors.Join(first.create("good"), first.write("good", "good"), first.create("evil"), first.write("evil", "evil")); err != nil {
		t.Fatal(err)
	}
	const rounds = 100
	inDir := second.node("dir")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range rounds {
			_ = second.Rename(virtiofstest.Root, "good", virtiofstest.Root, "evil", unix.RENAME_EXCHANGE)
			_ = second.Rename(virtiofstest.Root, "good", inDir, "judged", 0)
			_ = second.Rename(virtiofstest.Root, "evil", virtiofstest.Root, "good", 0)
		}
	}()
	for i := range rounds {
		_ = first.create("good")
		_ = first.writeIfThere("good", [...]string{"good", "evil"}[i%2])
		_ = first.create("evil")
		_ = first.writeIfThere("evil", "evil")
		_ = first.rename("good", "dir/judged", 0)
		if got, err := os.ReadFile(dir + "/dir/judged"); err != nil || string(got) != "good" && string(got) != "old\n" {
			t.Fatalf("round %d: %q, %v", i, got, err)
		}
	}
	<-done
	if got, err := os.ReadFile(dir + "/dir/judged"); err != nil || string(got) != "good" {
		t.Errorf("in the end: %q, %v", got, err)
	}
}

// writeIfThere is write, for a file that may be gone.
func (g guest) writeIfThere(name, text string) error {
	file, err := g.Lookup(virtiofstest.Root, name)
	if err != nil {
		return err
	}
	handle, err := g.Open(file, unix.O_WRONLY|unix.O_TRUNC)
	if err != nil {
		return err
	}
	return errors.Join(g.Write(file, handle, 0, []byte(text)), g.Release(file, handle))
}

// Whatever the host and a second guest do to the directories above: what is frozen stays.
func TestRenamesAboveAreNoWayAround(t *testing.T) {
	told := &events{}
	g, dir := judged(t, told)
	file, frozen := g.node("dir/frozen/file"), g.node("dir/frozen")
	stopped, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stopped:
				return
			default:
				_ = os.Rename(dir+"/dir", dir+"/moved")
				_ = os.Rename(dir+"/moved", dir+"/dir")
			}
		}
	}()
	for range 300 {
		if _, err := g.Open(file, unix.O_WRONLY); !errors.Is(err, unix.EACCES) {
			t.Fatalf("open: %v", err)
		}
		if _, _, err := g.Create(frozen, "new", unix.O_WRONLY); !errors.Is(err, unix.EACCES) {
			t.Fatalf("create: %v", err)
		}
		if err := g.Unlink(frozen, "file"); !errors.Is(err, unix.EACCES) {
			t.Fatalf("unlink: %v", err)
		}
	}
	close(stopped)
	<-done
}

// not wants EPERM.
func not(err error) error {
	if !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("the error is %w, want %w", err, unix.EPERM)
	}
	return nil
}

func TestGateTellsWhatTheGuestDoes(t *testing.T) {
	told := &events{}
	g, _ := judged(t, told)
	for _, tt := range []struct {
		do   func() error
		want string
	}{
		{func() error { return g.create("new") }, `create "new"`},
		{func() error { return g.write("new", "x") }, `write "new"`},
		{func() error { return g.rename("new", "dir/new2", 0) }, `rename "new" → "dir/new2"`},
		{func() error { return g.symlink("l", "to where") }, `symlink "l" → "to where"`},
		{func() error { return g.unlink("dir/new2") }, `remove "dir/new2"`},
		{func() error { return g.open("file", unix.O_RDONLY) }, ""},
		{func() error { g.open("hidden", unix.O_RDONLY); return nil }, `read "hidden": refused by rule test (it is a test)`},
		{func() error { g.rename("file", "frozen/x", 0); return nil }, `rename "file" → "frozen/x": refused by rule test (it is a test)`},
		{func() error { return not(g.setattr("file", virtiofstest.Attr{Mode: new(uint32(0o4755))})) }, `chmod "file": refused by rule set-id (other users of the host would run it as you)`},
		{func() error { return not(g.setattr("dir", virtiofstest.Attr{Mode: new(uint32(0o2755))})) }, `chmod "dir": refused by rule set-id (other users of the host would run it as you)`},
		{func() error { return not(g.mknod("s", unix.S_IFREG|0o2755)) }, `create "s": refused by rule set-id (other users of the host would run it as you)`},
		{func() error { return not(g.mknod("p", unix.S_IFIFO|0o4644)) }, `mknod "p": refused by rule set-id (other users of the host would run it as you)`},
		{func() error { return not(g.mknod("d", unix.S_IFCHR|0o644)) }, `mknod "d": refused by rule device (a device of the host can be behind it)`},
	} {
		if err := tt.do(); err != nil {
			t.Errorf("%s: %v", tt.want, err)
		}
		if got := told.take(); got != tt.want {
			t.Errorf("it told %s; want %s", got, tt.want)
		}
	}
}

func TestEndOfTheGateIsTheEndOfTheServer(t *testing.T) {
	c := realConfig(t, os.Geteuid())
	c.Judge = testJudge{}
	s, err := realDaemon(t).Start(t.Context(), c)
	skipWithoutGate(t, err)
	if err != nil {
		t.Fatal(err)
	}
	s.gate.Close()
	await(t, s.Done())
	if s.Err() == nil {
		t.Error("Err is nil, as if the guest had left")
	}
}

// Somebody else decides about our system calls already, as in some containers.
func TestShareThatCannotBeJudgedIsNotServed(t *testing.T) {
	c := realConfig(t, os.Geteuid())
	for _, judged := range []bool{true, false} {
		order := helperOrder{Daemon: realDaemon(t), Config: c, Judged: judged, Source: c.Directory.Path()}
		var out bytes.Buffer
		log := &buffer{}
		program := confine.Program{Self: "helper", Stdout: &out, Env: append(os.Environ(), helperConfig+"="+order.encode(t))}
		spec := confine.Spec{
			Filter:   &confine.Filter{Rules: []confine.Rule{{Calls: []int{unix.SYS_SYNC}, Do: confine.Notify}}, Default: confine.Allow},
			Listener: func(f *os.File) { t.Cleanup(func() { f.Close() }) },
		}
		p, _, err := confine.Start(t.Context(), program, spec, process.Options{Log: log})
		if _, ok := errors.AsType[*confine.NotifyError](err); ok {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		<-p.Done()
		var report helperReport
		if err := json.Unmarshal(out.Bytes(), &report); err != nil {
			t.Fatalf("%v: %s", err, log)
		}
		if refused := strings.Contains(report.Error, "no rules for shared files can be enforced on this machine: "); refused != judged {
			t.Errorf("judged: %v; it says %q", judged, report.Error)
		}
		if _, err := os.Stat(c.Socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left behind: %v", err)
		}
	}
}

// The directory of objects is one that a file in a share names: whatever is beside objects stays where it is.
func TestServerOfObjectsShowsNothingElse(t *testing.T) {
	c := realConfig(t, os.Geteuid())
	dir := c.Directory.Path()
	object := "3f/" + strings.Repeat("a", 38)
	for _, name := range []string{object, "pack/pack-1.pack", "info/alternates", "key", "info/key", "pack/key", "3f/key", "ssh/id"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700), os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	set, err := Share{Source: dir, Objects: true, ReadOnly: true}.Judge(c.Directory)
	if err != nil {
		t.Fatal(err)
	}
	c.Judge, c.Judged, c.ReadOnly = set, new(events).add, true
	s, err := realDaemon(t).Start(t.Context(), c)
	skipWithoutGate(t, err)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, s)
	g := guest{connect(t, c.Socket), t}
	for name, want := range map[string]error{
		object: nil, "pack/pack-1.pack": nil, "info/alternates": nil,
		"key": unix.EACCES, "info/key": unix.EACCES, "pack/key": unix.EACCES, "3f/key": unix.EACCES, "ssh/id": unix.EACCES,
	} {
		if err := g.open(name, unix.O_RDONLY); !errors.Is(err, want) {
			t.Errorf("opening %s: %v, want %v", name, err, want)
		}
	}
	if err := errors.Join(g.create("info/x"), g.unlink(object)); !errors.Is(err, unix.EROFS) {
		t.Errorf("it can be written: %v", err)
	}
}
