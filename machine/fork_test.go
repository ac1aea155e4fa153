package machine

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/snapshot"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// forkable is a sandbox with a snapshot, a home and published ports, of which
// forks can be made.
func forkable(t *testing.T) (*Host, *Forkable) {
	t.Helper()
	h := testHost(t)
	c := testConfig("parent")
	c.DiskMiB, c.SSHPort, c.Remove = 64, 2222, true
	c.Forwards = []network.Forward{{Proto: "tcp", HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 8080, GuestPort: 80}}
	s, err := h.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(s.Files().Home(), "note"), "of the home")
	snap := saveTest(t, s, "one", time.Now())
	linkClientKey(t, s, "one")
	return h, &Forkable{s: s, snap: snap, home: s.Files().Home()}
}

// linkClientKey gives a snapshot of saveTest the key that a fork needs of it.
func linkClientKey(t *testing.T, s *Sandbox, tag string) {
	t.Helper()
	if err := os.Link(s.Files().Key(layout.ClientKey), filepath.Join(s.Files().Snapshot(tag), layout.ClientKey)); err != nil {
		t.Fatal(err)
	}
}

func TestForkHasAllButTheIdentity(t *testing.T) {
	h, f := forkable(t)
	s, err := f.Fork(t.Context(), ForkOptions{Name: "fork"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Config()
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "fork" || c.ForkOf != "parent" || c.Remove || c.SSHPort != 0 || c.Forwards[0].HostPort != 0 || c.Forwards[0].GuestPort != 80 || c.DiskMiB != 64 {
		t.Errorf("the fork is configured as %+v", c)
	}
	if parent, err := f.s.Config(); err != nil || parent.Forwards[0].HostPort != 8080 {
		t.Errorf("the parent is configured as %+v, %v", parent, err)
	}
	if note, err := os.ReadFile(filepath.Join(s.Files().Home(), "note")); string(note) != "of the home" {
		t.Errorf("the fork's home has the note %q, %v", note, err)
	}
	for _, name := range []string{layout.ClientKey, layout.HostKey} {
		was, _ := os.ReadFile(f.s.Files().Key(name))
		if is, err := os.ReadFile(s.Files().Key(name)); err != nil || string(is) == string(was) {
			t.Errorf("the fork has the parent's %s, %v", name, err)
		}
	}
	if got := s.firstState(); got != s.Files().Snapshot(OriginTag) {
		t.Errorf("its first start has the state %q", got)
	}
	if snap, err := s.Snapshot(OriginTag); err != nil || snap.Home != nil {
		t.Errorf("what it begins with says that it has the home %v, %v", snap.Home, err)
	}
	if err := durable.WriteJSON(s.Files().Path(layout.StateFile), State{Status: StatusStopped}); err != nil {
		t.Fatal(err)
	}
	if got := s.firstState() + f.s.firstState(); got != "" {
		t.Errorf("other starts have the state %q", got)
	}
	// What it begins with stays when the parent goes.
	if err := f.s.Remove(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	snap, err := s.Snapshot(OriginTag)
	if err == nil {
		err = s.VerifySnapshot(t.Context(), snap)
	}
	if err != nil {
		t.Error(err)
	}
	if _, err := h.Get("parent"); err == nil {
		t.Error("the parent is still there")
	}
}

func TestForkThatCannotBeMadeIsNotThere(t *testing.T) {
	h, f := forkable(t)
	if err := os.Remove(filepath.Join(f.s.Files().Snapshot("one"), snapshot.DevicesFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Fork(t.Context(), ForkOptions{Name: "fork"}); err == nil || !strings.Contains(err.Error(), "snapshot one of parent") {
		t.Errorf("without a file of the snapshot: %v", err)
	}
	if _, err := h.Get("fork"); err == nil {
		t.Error("half a fork is there")
	}
}

func TestForksHaveACopyOfTheHomeAsItWas(t *testing.T) {
	_, f := forkable(t)
	var err error
	if f.copy, err = f.s.takeHome(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.home = f.copy.home()
	writeFile(t, filepath.Join(f.s.Files().Home(), "note"), "changed meanwhile")
	for _, o := range []ForkOptions{{Name: "one"}, {Name: "two", Last: true}} {
		s, err := f.Fork(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if got := homeOf(t, s); got != "of the home" {
			t.Errorf("the home of %s has %q", o.Name, got)
		}
	}
	if durable.Exists(f.home) {
		t.Error("the last fork has not taken the home, but copied it")
	}
	if err := f.Close(); err != nil || durable.Exists(f.copy.dir) {
		t.Errorf("the copy is still there: %v", err)
	}
}

func TestHomeOfASandboxThatSomebodyChangesIsNotCopied(t *testing.T) {
	h, f := forkable(t)
	lock, err := f.s.Files().Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, err := f.s.takeHome(t.Context()); err == nil || !strings.Contains(err.Error(), "try again in a moment") {
		t.Errorf("error %v, want what to do", err)
	}
	if entries, err := os.ReadDir(h.Dirs.State); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v: the copy is still there", entries, err)
	}
}

func TestOnlyWhatIsBelowTheHomeIsMadeInIt(t *testing.T) {
	for target, want := range map[string]string{
		"/home/agent/src": "src", "/home/agent/a/b": "a/b", "/home/agent": "", "/srv/data": "", "/home/agent2": "",
	} {
		if rel, ok := withinHome("/home/agent", target); rel != want || ok != (want != "") {
			t.Errorf("%s is %q in the home (%t), want %q", target, rel, ok, want)
		}
	}
}

// homeOf returns the only line in the home.
func homeOf(t *testing.T, s *Sandbox) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.Files().Home(), "note"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What a share cannot have when it is read-only, a fork's does not have.
func TestSharesOfAForkAreReadOnly(t *testing.T) {
	got := readOnly([]virtiofs.Share{{Source: "/src", Target: "src", Quota: 5 << 30, Watch: true}})[0]
	if again, err := virtiofs.ParseShare(got.String(), "/"); err != nil || !again.ReadOnly {
		t.Errorf("%s is read as %+v, %v", got, again, err)
	}
}
