package tree_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/tree"
)

// canary is what must never be found in a copy.
const canary = "the host's secret"

// swapping exchanges a directory for a link to another one, and back, until the
// test's end, as a guest does that shares the tree. Round tells that it did so
// once more.
func swapping(t *testing.T, dir, other string) (round func()) {
	t.Helper()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(other, link); err != nil {
		t.Fatal(err)
	}
	stop, rounds := make(chan struct{}), make(chan struct{})
	var attacker sync.WaitGroup
	attacker.Go(func() {
		for {
			if err := unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE); err != nil {
				t.Error(err)
			}
			select {
			case <-stop:
				return
			case rounds <- struct{}{}:
			default:
			}
		}
	})
	t.Cleanup(func() { close(stop); attacker.Wait() })
	return func() { <-rounds }
}

// hasCanary looks for the canary without following links.
func hasCanary(t *testing.T, dir string) bool {
	t.Helper()
	for name, text := range look(t, dir) {
		if strings.Contains(name, canary) || strings.Contains(text, canary) {
			return true
		}
	}
	return false
}

func secret(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for i := range 5 {
		write(t, filepath.Join(dir, fmt.Sprintf("f%d", i)), canary)
		write(t, filepath.Join(dir, "deep", "er", fmt.Sprintf("f%d", i)), canary)
	}
	return dir
}

func TestCopyOfATreeInWhichLinksTakeThePlaceOfDirectories(t *testing.T) {
	source := t.TempDir()
	for i := range 5 {
		write(t, filepath.Join(source, "d", fmt.Sprintf("f%d", i)), "mine")
		write(t, filepath.Join(source, "d", "deep", "er", fmt.Sprintf("f%d", i)), "mine")
	}
	out := secret(t)
	round := swapping(t, filepath.Join(source, "d"), out)
	dest := t.TempDir()
	for i := range 100 {
		round()
		to := filepath.Join(dest, fmt.Sprint(i))
		// It may fail, but not by giving away what is outside.
		_ = tree.Copy(t.Context(), source, to, func(string) {})
		if hasCanary(t, to) {
			t.Fatal("the copy has what a link in the tree leads to")
		}
		if err := tree.Remove(to); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRemovalOfATreeInWhichLinksTakeThePlaceOfDirectories(t *testing.T) {
	out := secret(t)
	before := len(look(t, out))
	root := t.TempDir()
	for i := range 50 {
		victim := filepath.Join(root, fmt.Sprint(i))
		for j := range 10 {
			write(t, filepath.Join(victim, "d", fmt.Sprintf("f%d", j)), "mine")
		}
		link := filepath.Join(root, "link")
		if err := os.Symlink(out, link); err != nil {
			t.Fatal(err)
		}
		var attacker sync.WaitGroup
		attacker.Go(func() {
			for range 20 {
				_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(victim, "d"), unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
			}
		})
		_ = tree.Remove(victim)
		attacker.Wait()
		for _, path := range []string{victim, link} {
			if err := tree.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	if after := len(look(t, out)); after != before {
		t.Errorf("of %d things outside, %d are left", before, after)
	}
}

// deep makes a path far longer than the kernel takes, and returns its depth.
func deep(t *testing.T, dir string) int {
	t.Helper()
	const depth = 300
	name := strings.Repeat("n", 200) // 60 kB in all
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range depth {
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		if err != nil {
			t.Fatal(err)
		}
		fd = next
	}
	defer unix.Close(fd)
	file, err := unix.Openat(fd, "bottom", unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(file)
	return depth
}

func depthOf(t *testing.T, dir string) int {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for depth := 0; ; depth++ {
		if err != nil {
			t.Fatal(err)
		}
		var next int
		next, err = unix.Openat(fd, strings.Repeat("n", 200), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			var st unix.Stat_t
			if err := unix.Fstatat(fd, "bottom", &st, 0); err != nil {
				t.Error(err)
			}
			unix.Close(fd)
			return depth
		}
		unix.Close(fd)
		fd = next
	}
}

func TestTreesDeeperThanAPathIsLong(t *testing.T) {
	// Descriptors do not grow with the depth.
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	few := limit
	few.Cur = 150
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) }()

	source, dest := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	want := deep(t, source)
	if err := tree.Copy(t.Context(), source, dest, never(t)); err != nil {
		t.Fatal(err)
	}
	if got := depthOf(t, dest); got != want {
		t.Errorf("the copy is %d levels deep, want %d", got, want)
	}
	if used, err := tree.Used(dest); err != nil || used < int64(want) {
		t.Errorf("used %d, %v", used, err)
	}
	for _, dir := range []string{dest, source} {
		if err := tree.Remove(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", dir, err)
		}
	}
}

func TestCopyHasAllThatBelongsToFiles(t *testing.T) {
	source := t.TempDir()
	past := time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)
	write(t, filepath.Join(source, "f"), "text")
	write(t, filepath.Join(source, "d", "g"), "text")
	write(t, filepath.Join(source, strings.Repeat("n", 255)), "long")
	write(t, filepath.Join(source, "\xff\xfe\n"), "not text")
	for _, err := range []error{
		os.Link(filepath.Join(source, "f"), filepath.Join(source, "d", "again")),
		os.Link(filepath.Join(source, "f"), filepath.Join(source, "third")),
		os.Symlink("/no/such", filepath.Join(source, "l")),
		unix.Mkfifo(filepath.Join(source, "pipe"), 0o640),
		unix.Mknod(filepath.Join(source, "socket"), unix.S_IFSOCK|0o600, 0),
		os.Chmod(filepath.Join(source, "f"), 0o640),
		os.Chmod(filepath.Join(source, "d"), 0o551),
		os.Chtimes(filepath.Join(source, "f"), past, past),
		os.Chtimes(filepath.Join(source, "d"), past, past),
		os.Chtimes(source, past, past),
		unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(source, "l"), []unix.Timespec{unix.NsecToTimespec(past.UnixNano()), unix.NsecToTimespec(past.UnixNano())}, unix.AT_SYMLINK_NOFOLLOW),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	attributes := unix.Setxattr(filepath.Join(source, "d"), "user.test", []byte("value"), 0) == nil
	dest := filepath.Join(t.TempDir(), "copy")
	if err := tree.Copy(t.Context(), source, dest, never(t)); err != nil {
		t.Fatal(err)
	}
	got, want := look(t, dest), look(t, source)
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%q is %q, want %q", name, got[name], want[name])
		}
		was, err := os.Lstat(filepath.Join(source, name))
		if err != nil {
			t.Fatal(err)
		}
		is, err := os.Lstat(filepath.Join(dest, name))
		if err != nil || is.Mode() != was.Mode() || !is.ModTime().Equal(was.ModTime()) {
			t.Errorf("%q is %v of %v, %v; want %v of %v", name, is.Mode(), is.ModTime(), err, was.Mode(), was.ModTime())
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if info, err := os.Stat(dest); err != nil || !info.ModTime().Equal(past) {
		t.Errorf("the root is of %v, %v", info.ModTime(), err)
	}
	var a, b, c unix.Stat_t
	for name, st := range map[string]*unix.Stat_t{"f": &a, "d/again": &b, "third": &c} {
		if err := unix.Lstat(filepath.Join(dest, name), st); err != nil {
			t.Fatal(err)
		}
	}
	if a.Ino != b.Ino || a.Ino != c.Ino || a.Nlink != 3 {
		t.Errorf("three names of one file are %d, %d and %d with %d links", a.Ino, b.Ino, c.Ino, a.Nlink)
	}
	if attributes {
		value := make([]byte, 100)
		if n, err := unix.Getxattr(filepath.Join(dest, "d"), "user.test", value); err != nil || string(value[:n]) != "value" {
			t.Errorf("the attribute is %q, %v", value[:max(n, 0)], err)
		}
	}
	_ = os.Chmod(filepath.Join(source, "d"), 0o755) // for the clean-up
}

func TestHolesStayHoles(t *testing.T) {
	source, dest := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	const size = 1 << 30
	f, err := os.Create(filepath.Join(source, "f"))
	if err == nil {
		_, err = f.WriteAt([]byte("data"), size/2)
	}
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err == nil {
		err = tree.Copy(t.Context(), source, dest, never(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dest, "f"), &st); err != nil || st.Size != size || st.Blocks*512 > 1<<20 {
		t.Errorf("%d bytes take %d, %v", st.Size, st.Blocks*512, err)
	}
	g, err := os.Open(filepath.Join(dest, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	buf := make([]byte, 4)
	if _, err := g.ReadAt(buf, size/2); err != nil || string(buf) != "data" {
		t.Errorf("%q, %v", buf, err)
	}
}

func TestFilesThatBelongToRootLoseTheirSetIDBits(t *testing.T) {
	source, dest := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	path := filepath.Join(source, "su")
	write(t, path, "")
	if err := os.Chmod(path, 0o755|fs.ModeSetuid|fs.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	if err := tree.Copy(t.Context(), source, dest, never(t)); err != nil {
		t.Fatal(err)
	}
	want := fs.FileMode(0o755)
	if os.Getuid() != 0 {
		want |= fs.ModeSetuid | fs.ModeSetgid // somebody else's are that one's own affair
	}
	if info, err := os.Stat(filepath.Join(dest, "su")); err != nil || info.Mode() != want {
		t.Errorf("%v, %v, want %v", info.Mode(), err, want)
	}
}

func TestCopyStopsWhenItIsTold(t *testing.T) {
	source := t.TempDir()
	write(t, filepath.Join(source, "f"), "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tree.Copy(ctx, source, filepath.Join(t.TempDir(), "copy"), never(t)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestTheRootIsNoLink(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "out", "f"), canary)
	if err := os.Symlink("out", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	if err := tree.Copy(t.Context(), filepath.Join(root, "link"), filepath.Join(root, "copy"), never(t)); err == nil {
		t.Error("the source's link was followed")
	}
	if err := tree.Copy(t.Context(), filepath.Join(root, "out"), filepath.Join(root, "link"), never(t)); err == nil {
		t.Error("the destination's link was followed")
	}
	if err := tree.Remove(filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "out", "f")); err != nil {
		t.Error(err)
	}
}

// asUser runs do as an ordinary user who owns what is in dir, in a thread of its
// own: root may enter everything.
func asUser(t *testing.T, dir string, do func()) {
	t.Helper()
	if os.Getuid() != 0 {
		do()
		return
	}
	const nobody = 65534
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := errors.Join(os.Chmod(d, 0o755), os.Chown(d, nobody, nobody)); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			t.Error(errno)
			return
		}
		do()
	}()
	<-done
}

func TestTreesThatTheirOwnerCannotEnter(t *testing.T) {
	root := t.TempDir()
	asUser(t, root, func() {
		source, dest := filepath.Join(root, "source"), filepath.Join(root, "copy")
		locked := map[string]fs.FileMode{
			"d/e/f": 0, "d/e/only-write": 0o200, "d/e": 0, "d": 0o111, "list-only/g": 0o400, "list-only": 0o444, ".": 0o300,
		}
		for _, dir := range []string{"d/e", "list-only"} {
			if err := os.MkdirAll(filepath.Join(source, dir), 0o700); err != nil {
				t.Error(err)
			}
		}
		for _, name := range []string{"d/e/f", "d/e/only-write", "list-only/g"} {
			if err := os.WriteFile(filepath.Join(source, name), []byte("text"), 0o600); err != nil {
				t.Error(err)
			}
		}
		for _, name := range []string{"d/e/f", "d/e/only-write", "d/e", "d", "list-only/g", "list-only", "."} { // the inner ones first
			if err := os.Chmod(filepath.Join(source, name), locked[name]); err != nil {
				t.Error(err)
			}
		}
		if err := tree.Copy(t.Context(), source, dest, never(t)); err != nil {
			t.Error(err)
			return
		}
		for _, dir := range []string{source, dest} {
			for _, name := range []string{".", "list-only", "list-only/g", "d", "d/e", "d/e/f", "d/e/only-write"} { // the outer ones first
				path := filepath.Join(dir, name)
				info, err := os.Lstat(path)
				if err != nil || info.Mode().Perm() != locked[name] {
					t.Errorf("%s is %v, %v; want %v", path, info.Mode(), err, locked[name])
					return
				}
				if err := os.Chmod(path, 0o700); err != nil {
					t.Error(err)
				}
				if !info.IsDir() {
					if text, err := os.ReadFile(path); string(text) != "text" {
						t.Errorf("%s is %q, %v", path, text, err)
					}
				}
				if err := os.Chmod(path, 0o700); err != nil {
					t.Error(err)
				}
			}
			for _, name := range []string{"d/e", "d", "."} {
				if err := os.Chmod(filepath.Join(dir, name), 0); err != nil {
					t.Error(err)
				}
			}
			if err := tree.Remove(dir); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is still there: %v", dir, err)
			}
		}
	})
}

func TestManyNames(t *testing.T) {
	source, dest := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	const many = 300 // more than one piece of a listing, with names of this length
	for i := range many {
		write(t, filepath.Join(source, fmt.Sprintf("%0200d", i)), "")
	}
	if err := tree.Copy(t.Context(), source, dest, never(t)); err != nil {
		t.Fatal(err)
	}
	if got := len(look(t, dest)); got != many {
		t.Errorf("%d names, want %d", got, many)
	}
	if err := tree.Remove(dest); err != nil {
		t.Fatal(err)
	}
}
