package virtiofs

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/virtiofs/virtiofstest"
)

// team is a group of the tests that several users have.
const team = 54321

// A directory of a team belongs to one of its members, and all others may write to it because of its group, which it hands
// on to what is made in it.
func TestGuestWorksInADirectoryOfATeam(t *testing.T) {
	needRoot(t)
	const other = 12345
	for name, attr := range map[string]*syscall.SysProcAttr{
		"by root":       {},
		"by the user":   {Credential: &syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{team}}},
		"no namespaces": inNamespace(0, nobody, team, other),
	} {
		t.Run(name, func(t *testing.T) {
			order := helperOrder{Daemon: realDaemon(t), Config: realConfig(t, nobody)}
			order.Config.HostGroups = []int{team}
			order.Config.AllowUnconfined, order.NoNamespaces = name == "no namespaces", name == "no namespaces"
			dir := order.Config.Directory.Path()
			if err := errors.Join(os.Chown(dir, other, team), unix.Chmod(dir, unix.S_ISGID|0o770)); err != nil {
				t.Fatal(err)
			}
			writeFile(t, dir+"/theirs", "old")
			if err := errors.Join(os.Chown(dir+"/theirs", other, team), os.Chmod(dir+"/theirs", 0o660)); err != nil {
				t.Fatal(err)
			}
			h := startHelper(t, order, attr)
			if h.Error != "" {
				t.Fatal(h.Error)
			}
			t.Log("isolation:", h.Isolation)
			g := guest{connect(t, order.Config.Socket), t}
			if err := errors.Join(g.create("file"), g.mkdir("sub"), g.create("sub/file"), g.mkdir("sub/sub"), g.write("theirs", "new")); err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]unix.Stat_t{
				"file":     {Uid: nobody, Mode: unix.S_IFREG | 0o644},
				"sub":      {Uid: nobody, Mode: unix.S_IFDIR | unix.S_ISGID | 0o755},
				"sub/file": {Uid: nobody, Mode: unix.S_IFREG | 0o644},
				"sub/sub":  {Uid: nobody, Mode: unix.S_IFDIR | unix.S_ISGID | 0o755},
				"theirs":   {Uid: other, Mode: unix.S_IFREG | 0o660},
			} {
				var st unix.Stat_t
				if err := unix.Stat(dir+"/"+name, &st); err != nil || st.Uid != want.Uid || st.Gid != team || st.Mode != want.Mode {
					t.Errorf("%s belongs to %d:%d and has the mode %o, %v; want %d:%d, %o", name, st.Uid, st.Gid, st.Mode, err, want.Uid, team, want.Mode)
				}
				// The group is the guest's user's, so that its kernel lets it use what the group may.
				guestUID := uint32(1000)
				if want.Uid == other {
					guestUID = overflowID
				}
				if uid, gid, mode, err := g.Owner(g.node(name)); err != nil || uid != guestUID || gid != 1000 || mode != want.Mode {
					t.Errorf("in the guest, %s belongs to %d:%d and has the mode %o, %v", name, uid, gid, mode, err)
				}
			}
			if err := g.setattr("file", virtiofstest.Attr{Mode: new(uint32(0o664))}); err != nil {
				t.Errorf("giving the group the right to write: %v", err)
			}
		})
	}
}

// What is served is the directory that was opened: a guest goes on with it, whatever takes its place.
func TestServedDirectoryThatIsGone(t *testing.T) {
	c := realConfig(t, os.Geteuid())
	dir := c.Directory.Path()
	s, err := realDaemon(t).Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, s)
	g := guest{connect(t, c.Socket), t}
	if err := g.create("file"); err != nil {
		t.Fatal(err)
	}
	// Moved away, it is the same one.
	if err := os.Rename(dir, dir+"-moved"); err != nil {
		t.Fatal(err)
	}
	if err := g.write("file", "moved"); err != nil {
		t.Errorf("a directory that was moved: %v", err)
	}
	if text, err := os.ReadFile(dir + "-moved/file"); string(text) != "moved" {
		t.Errorf("the file holds %q, %v", text, err)
	}
	// Removed, it is empty and takes nothing, also when there is another one.
	if err := errors.Join(os.RemoveAll(dir+"-moved"), os.Mkdir(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir+"/file", "of another")
	if _, err := g.Lookup(virtiofstest.Root, "file"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("the file of the new directory: %v", err)
	}
	if err := g.create("new"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("creating in a directory that is gone: %v", err)
	}
	if list, err := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("the new directory has %v, %v", list, err)
	}
}

// A file system that is unmounted on the host is in use until its server ends.
func TestServedFileSystemThatIsUnmounted(t *testing.T) {
	needRoot(t)
	c := realConfig(t, os.Geteuid())
	dir := c.Directory.Path()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1M,mode=755"); err != nil {
		t.Skipf("nothing can be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	mounted := openDir(t, dir)
	c.Directory = mounted
	s, err := realDaemon(t).Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, s)
	mounted.Close()
	g := guest{connect(t, c.Socket), t}
	if err := errors.Join(g.create("file"), unix.Unmount(dir, 0)); err != nil {
		t.Fatal(err)
	}
	if err := g.write("file", "unmounted"); err != nil {
		t.Errorf("after it was unmounted: %v", err)
	}
	if list, err := os.ReadDir(dir); len(list) != 0 || err != nil {
		t.Errorf("what is below the mount has %v, %v", list, err)
	}
}
