package hostdir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func mkdir(t *testing.T, elements ...string) string {
	t.Helper()
	dir := filepath.Join(elements...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func resolved(t *testing.T, name string) string {
	t.Helper()
	name, err := Resolve(name)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func open(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func identity(t *testing.T, d *Dir) Identity {
	t.Helper()
	id, err := d.Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestOpenFollowsNoLink(t *testing.T) {
	base := resolved(t, t.TempDir())
	mkdir(t, base, "real", "inner")
	if err := os.Symlink("real", filepath.Join(base, "link")); err != nil {
		t.Fatal(err)
	}
	if got := resolved(t, base+"/link/inner"); got != base+"/real/inner" {
		t.Errorf("Resolve = %s", got)
	}
	open(t, base+"/real/inner")
	open(t, "/")
	for path, link := range map[string]string{base + "/link": base + "/link", base + "/link/inner": base + "/link", "/proc/self/fd": "/proc/self"} {
		_, err := Open(path)
		if e, ok := errors.AsType[*LinkError](err); !ok || e.Path != link {
			t.Errorf("Open(%s): %v; want a LinkError about %s", path, err, link)
		}
	}
	top := open(t, base)
	for _, name := range []string{"link", "link/inner"} {
		_, err := top.Beneath(name)
		if e, ok := errors.AsType[*LinkError](err); !ok || e.Path != base+"/link" {
			t.Errorf("Beneath(%s): %v", name, err)
		}
	}
	for _, name := range []string{"..", "real/../..", "/etc", ""} {
		if d, err := top.Beneath(name); err == nil {
			t.Errorf("Beneath(%q) is %s", name, d.Path())
		}
	}
	if d, err := top.Beneath("real/inner"); err != nil || d.Path() != base+"/real/inner" {
		t.Errorf("Beneath: %v, %v", d, err)
	}
}

func TestOpenOfWhatIsNoDirectory(t *testing.T) {
	base := resolved(t, t.TempDir())
	if err := os.WriteFile(base+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(base + "/missing/x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing one: %v", err)
	}
	for _, path := range []string{base + "/file", base + "/file/x", "relative", base + "/.", base + "/../x"} {
		if _, err := Open(path); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestIdentityTellsADirectoryFromWhatTakesItsPlace(t *testing.T) {
	base := resolved(t, t.TempDir())
	path := mkdir(t, base, "dir")
	before := identity(t, open(t, path))
	if again := identity(t, open(t, path)); before != again || before.Difference(again) != "" {
		t.Errorf("%+v and %+v", before, again)
	}
	if err := errors.Join(os.Rename(path, base+"/moved"), os.Mkdir(path, 0o755)); err != nil {
		t.Fatal(err)
	}
	if now := identity(t, open(t, path)); before.Difference(now) == "" {
		t.Errorf("the new directory is taken for the old one: %+v", now)
	}
	if moved := identity(t, open(t, base+"/moved")); before.Difference(moved) != "" {
		t.Errorf("the old directory is not known at another path: %+v", moved)
	}
	// The number of an inode is free for the next directory.
	if before.Born.IsZero() {
		t.Skip("this file system tells no time of birth: run the test on ext4, XFS or btrfs to see the rest")
	}
	reused := before
	reused.Born = before.Born.Add(1)
	if before.Same(reused) {
		t.Error("a reused inode number is taken for the old directory")
	}
	reboot := before
	reboot.Device++
	if !before.Same(reboot) {
		t.Error("a device that has another number after a reboot makes another directory")
	}
}

func TestIdentityWithoutABirthNeedsTheDevice(t *testing.T) {
	a, b := Identity{Device: 1, Inode: 2}, Identity{Device: 2, Inode: 2}
	if !a.Same(a) || a.Same(b) {
		t.Error("the root directories of two file systems are taken for one")
	}
}

func TestOwnerIsPartOfTheRecord(t *testing.T) {
	a := Identity{Inode: 2, UID: 1000}
	b := a
	b.UID = 0
	if a.Difference(b) != "belongs to user 0 now and no more to user 1000" {
		t.Error(a.Difference(b))
	}
	b = a
	b.GID = 5
	if a.Difference(b) != "" {
		t.Error("a group cannot be given to the directory")
	}
}

func TestDirectoryStaysWhatItIs(t *testing.T) {
	base := resolved(t, t.TempDir())
	path := mkdir(t, base, "a", "dir")
	other := mkdir(t, base, "b")
	d := open(t, path)
	if err := errors.Join(os.Rename(path, other+"/dir"), os.Symlink("/", path)); err != nil {
		t.Fatal(err)
	}
	line, err := d.Lineage()
	if err != nil {
		t.Fatal(err)
	}
	for where, want := range map[string]bool{"/": true, base: true, other: true, other + "/dir": true, base + "/a": false, "/proc": false} {
		node, err := NodeAt(where)
		if err != nil {
			t.Fatal(err)
		}
		if line[node] != want {
			t.Errorf("%s above the directory: %v", where, line[node])
		}
	}
	if err := d.CheckReadable(); err != nil {
		t.Error(err)
	}
}

func TestUnreadableDirectory(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root can read everything: run the tests as an ordinary user to see this one")
	}
	path := mkdir(t, resolved(t, t.TempDir()), "closed")
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(path, 0o700) })
	if err := open(t, path).CheckReadable(); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v", err)
	}
}
