//go:build linux

package guest

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/boot"
	"github.com/sourcery-zone/sandbox/agent/internal/wire"
	"github.com/sourcery-zone/sandbox/internal/ownthread"
)

// inWorkspace calls do, in a mount namespace of its own, with a copy-on-write share of a directory with those files.
// again mounts it anew, as the next boot does.
func inWorkspace(t *testing.T, files map[string]string, do func(w *workspace, merged, lower string, again func() *workspace)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount an overlay with attributes of its own")
	}
	dir := t.TempDir()
	ownthread.Run(func() {
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			t.Skipf("no mount namespace: %v", err)
		}
		check := func(err error) {
			if err != nil {
				t.Error(err)
				panic(err)
			}
		}
		check(unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""))
		check(unix.Mount("tmpfs", "/run", "tmpfs", 0, ""))
		check(unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
		defer unix.Unmount(dir, unix.MNT_DETACH)
		lower, merged, top := filepath.Join(dir, "lower"), filepath.Join(dir, "root/merged"), filepath.Join(dir, "top")
		for _, d := range []string{lower, merged, top} {
			check(os.MkdirAll(d, 0o755))
		}
		check(os.Chown(lower, 1000, 100))
		for name, content := range files {
			check(os.MkdirAll(filepath.Dir(filepath.Join(lower, name)), 0o755))
			check(os.WriteFile(filepath.Join(lower, name), []byte(content), 0o640))
		}
		var ws workspaces
		check(ws.keep(top))
		mount := func() *workspace {
			point, err := directoryPoint(dir, "/root/merged", boot.User{})
			check(err)
			defer point.Close()
			err = ws.mount(agent.Mount{Tag: "share0", Target: "/merged"}, point, func(at string) error {
				if err := unix.Mount(lower, at, "", unix.MS_BIND, ""); err != nil {
					return err
				}
				return unix.Mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
			})
			check(err)
			return ws.all["share0"]
		}
		w := mount()
		do(w, merged, lower, func() *workspace {
			check(unix.Unmount(merged, 0)) // which nothing keeps busy
			ws.all["share0"].close()
			return mount()
		})
		ws.all["share0"].close()
	})
}

// listed is what the workspace lists, as words.
func listed(t *testing.T, w *workspace) []string {
	t.Helper()
	var got []string
	err := w.List(t.Context(), func(e wire.WorkspaceEntry) error {
		word := string(e.Path)
		switch {
		case e.Mode == 0:
			word = "-" + word
		case e.Mode&unix.S_IFMT == unix.S_IFDIR:
			word += "/"
		case e.Mode&unix.S_IFMT == unix.S_IFLNK:
			word += "->" + string(e.Link)
		case e.Mode&unix.S_IFMT != unix.S_IFREG:
			word += "?"
		}
		if e.Whole {
			word += " whole"
		}
		if e.Moved {
			word += " moved"
		}
		got = append(got, word)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return got
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	return string(text)
}

func put(path, text string) error { return os.WriteFile(path, []byte(text), 0o644) }

func TestWorkspaceListsWhatTheGuestHasChanged(t *testing.T) {
	files := map[string]string{"a": "a", "b": "b", "dir/x": "x", "dir/sub/y": "y", "old/z": "z", "kept/k": "k"}
	inWorkspace(t, files, func(w *workspace, merged, lower string, again func() *workspace) {
		in := func(name string) string { return filepath.Join(merged, name) }
		expect(t, listed(t, w))
		if info, err := os.Stat(merged); err != nil || info.Sys().(*syscall.Stat_t).Uid != 1000 {
			t.Error("the top is not the user's")
		}
		must(t, put(in("a"), "changed"), os.Remove(in("b")), os.Rename(in("dir"), in("moved")), os.RemoveAll(in("old")),
			os.Mkdir(in("old"), 0o755), put(in("old/new"), "new"), os.Symlink("/etc/passwd", in("s")), unix.Mkfifo(in("zpipe"), 0o600),
			os.MkdirAll(in("n/m"), 0o755), put(in("n/m/f"), ""), put(in("moved/added"), "added"), os.Remove(in("moved/x")), put(in("x\ny"), ""))
		want := []string{
			"a", "-b", "-dir", "moved/ whole moved", "moved/added whole", "moved/sub/ whole moved", "moved/sub/y",
			"n/ whole", "n/m/ whole", "n/m/f", "old/ whole", "old/new", "s->/etc/passwd", "x\ny", "zpipe?",
		}
		want[4] = "moved/added"
		expect(t, listed(t, w), want...)
		for name, content := range map[string]string{"a": "changed", "moved/sub/y": "y", "moved/added": "added"} {
			f, err := w.Open(name)
			if err != nil {
				t.Error(err)
				continue
			}
			got, err := io.ReadAll(f)
			if f.Close(); err != nil || string(got) != content {
				t.Errorf("%s has %q, %v", name, got, err)
			}
		}
		for _, name := range []string{"s", "zpipe", "moved", "../top", "none"} {
			if f, err := w.Open(name); err == nil {
				t.Errorf("%s was opened", name)
				f.Close()
			}
		}
		for name, content := range files {
			if read(t, filepath.Join(lower, name)) != content {
				t.Errorf("the host's %s has changed", name)
			}
		}
		// The next boot has the same, and files of their own.
		w = again()
		expect(t, listed(t, w), want...)
		for _, name := range []string{"a"} {
			if value, ok := attribute(w.upper, name, overlayOrigin); !ok || value != "" {
				t.Errorf("%s is found by the handle %q of an earlier boot", name, value)
			}
		}
	})
}

// Once kept, what was renamed needs nothing of the host's any more.
func TestWorkspaceKeepsWhatWasRenamed(t *testing.T) {
	inWorkspace(t, map[string]string{"dir/x": "x", "dir/sub/y": "y"}, func(w *workspace, merged, lower string, again func() *workspace) {
		must(t, os.Symlink("x", filepath.Join(lower, "dir/link")), os.Rename(filepath.Join(merged, "dir"), filepath.Join(merged, "moved")))
		must(t, w.Keep(t.Context(), "moved"), os.RemoveAll(filepath.Join(lower, "dir")))
		again()
		if got := read(t, filepath.Join(merged, "moved/x")) + read(t, filepath.Join(merged, "moved/sub/y")); got != "xy" {
			t.Errorf("got %q", got)
		}
		if target, err := os.Readlink(filepath.Join(merged, "moved/link")); err != nil || target != "x" {
			t.Errorf("the link is %q, %v", target, err)
		}
	})
}

func TestWorkspaceRestores(t *testing.T) {
	files := map[string]string{"a": "a", "b": "b", "dir/x": "x", "dir/sub/y": "y", "f": "f", "d/in": "in"}
	inWorkspace(t, files, func(w *workspace, merged, lower string, _ func() *workspace) {
		in := func(name string) string { return filepath.Join(merged, name) }
		must(t, os.Symlink("a", filepath.Join(lower, "link")))
		before := tree(t, merged)
		must(t, put(in("a"), "changed"), os.Chmod(in("b"), 0o777), os.Rename(in("dir"), in("moved")), os.Remove(in("f")), os.Mkdir(in("f"), 0o755),
			put(in("f/g"), ""), os.RemoveAll(in("d")), put(in("d"), "file"), os.Remove(in("link")), os.Symlink("/etc", in("link")), os.MkdirAll(in("new/er"), 0o700))
		if err := w.Restore(t.Context(), "d/in"); err == nil || !strings.Contains(err.Error(), "discard that") {
			t.Errorf("got %v", err)
		}
		for _, name := range []string{"a", "b", "dir", "moved", "f", "d", "link", "new", "none"} {
			must(t, w.Restore(t.Context(), name))
		}
		if after := tree(t, merged); !slices.Equal(before, after) {
			t.Errorf("before %q\nafter %q", before, after)
		}
		for _, name := range []string{"../x", "/etc", ".", "a/../b"} {
			if err := w.Restore(t.Context(), name); err == nil {
				t.Errorf("%s was restored", name)
			}
		}
	})
}

// What another share has mounted in it is not the workspace's to list or to remove.
func TestWorkspaceLeavesWhatIsMountedInIt(t *testing.T) {
	inWorkspace(t, map[string]string{"dir/x": "x"}, func(w *workspace, merged, lower string, _ func() *workspace) {
		must(t, os.Rename(filepath.Join(merged, "dir"), filepath.Join(merged, "moved")))
		at := filepath.Join(merged, "moved/share")
		must(t, os.Mkdir(at, 0o755), unix.Mount("tmpfs", at, "tmpfs", 0, ""), put(filepath.Join(at, "live"), "live"))
		defer unix.Unmount(at, unix.MNT_DETACH)
		if got := listed(t, w); slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "live") }) {
			t.Errorf("listed %q", got)
		}
		if err := w.Restore(t.Context(), "moved"); err == nil {
			t.Error("a mount point was removed")
		}
		if read(t, filepath.Join(at, "live")) != "live" {
			t.Error("what another share has is gone")
		}
	})
}

// Another directory in the same place has nothing of the first, which finds what it had when it comes back. So it does if it
// was there before directories had names.
func TestWorkspaceBelongsToOneDirectory(t *testing.T) {
	var ws workspaces
	must(t, ws.keep(t.TempDir()))
	defer ws.top.Close()
	holds := func(origin string) string {
		dir, err := ws.open("/srv/x", origin)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		text, _ := dir.ReadFile("data")
		must(t, dir.WriteFile("data", append(text, origin...), 0o600))
		return string(text)
	}
	var got []string
	for _, origin := range []string{"", "a", "b", "a", "b"} {
		got = append(got, holds(origin))
	}
	expect(t, got, "", "", "", "a", "b")
}

// What the agent has open of a workspace keeps nobody from unmounting it, and what a program has does.
func TestWorkspaceIsUnmountedWhenNobodyUsesIt(t *testing.T) {
	inWorkspace(t, map[string]string{"dir/x": "x"}, func(w *workspace, merged, _ string, again func() *workspace) {
		s := &service{logger: slog.New(slog.DiscardHandler)}
		s.workspaces.all = map[string]*workspace{"share0": w}
		must(t, put(filepath.Join(merged, "new"), "new"))
		inUse, err := os.Open(filepath.Join(merged, "dir"))
		must(t, err)
		unmount := func() bool {
			text, err := os.ReadFile("/proc/thread-self/mountinfo") // which has the namespace of this thread
			must(t, err)
			var all mountTable
			for line := range strings.Lines(string(text)) {
				if m, ok := parseMounted(line); ok {
					all = append(all, m)
				}
			}
			mounts := s.mountsOf(all, "share0")
			if len(mounts) != 1 || mounts[0].target != merged {
				t.Errorf("it is mounted at %+v", mounts)
				return false
			}
			return unix.Unmount(mounts[0].target, unix.UMOUNT_NOFOLLOW) == nil
		}
		if unmount() {
			t.Error("it was unmounted while a directory of it was open")
		}
		inUse.Close()
		if !unmount() {
			t.Error("it is busy, and nobody uses it")
		}
		s.workspaces.forget("share0")
		if _, ok := s.workspaces.device("share0"); ok {
			t.Error("it is still known")
		}
		must(t, unix.Mount("tmpfs", merged, "tmpfs", 0, "")) // for what again unmounts
		expect(t, listed(t, again()), "new")
	})
}

// tree is all below a directory, with modes, owners, times and contents.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	must(t, filepath.WalkDir(dir, func(name string, e os.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%s %v %d", strings.TrimPrefix(name, dir), info.Mode(), info.Sys().(*syscall.Stat_t).Uid)
		switch {
		case info.Mode().IsRegular():
			text, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %v %q", info.ModTime(), text)
		case info.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			line += target
		}
		all = append(all, line)
		return nil
	}))
	return all
}
