package erofs_test

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	goerofs "github.com/erofs/go-erofs"

	"github.com/sourcery-zone/sandbox/image/erofs"
)

var built = time.Unix(1_700_000_000, 0)

type item struct {
	h    tar.Header
	data string
}

func reg(name, data string) item {
	return item{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: built}, data}
}

func dir(name string) item {
	return item{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755, ModTime: built}, ""}
}

func hardlink(name, target string) item {
	return item{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}, ""}
}

// pack writes items and returns the file system's file.
// blockSizes are the ones that images have.
var blockSizes = []int{0, 1024}

func pack(t *testing.T, items ...item) *os.File { return packBlocks(t, 0, items...) }

func packBlocks(t *testing.T, blockSize int, items ...item) *os.File {
	t.Helper()
	f, err := tryPack(t, blockSize, items...)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func tryPack(t *testing.T, blockSize int, items ...item) (*os.File, error) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "store.erofs"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	w, err := erofs.Create(f, erofs.Options{Label: "test", BlockSize: blockSize, BuildTime: built, TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range items {
		if err := w.Add(&i.h, strings.NewReader(i.data)); err != nil {
			return f, err
		}
	}
	return f, w.Close()
}

func open(t *testing.T, f *os.File) fs.FS {
	t.Helper()
	fsys, err := goerofs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	return fsys
}

func stat(t *testing.T, fsys fs.FS, name string) (fs.FileInfo, *goerofs.Stat) {
	t.Helper()
	info, err := fs.Lstat(fsys, name)
	if err != nil {
		t.Fatal(err)
	}
	return info, info.Sys().(*goerofs.Stat)
}

func TestMetadataSurvives(t *testing.T) {
	sudo := reg("./usr/bin/sudo", "elf")
	sudo.h.Mode, sudo.h.Uid, sudo.h.Gid = 0o4755, 0, 5
	ping := reg("./usr/bin/ping", "elf")
	ping.h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02", "mtime": "1"}
	journal := dir("./var/log/journal/")
	journal.h.Mode, journal.h.Gid = 0o2755, 999
	journal.h.PAXRecords = map[string]string{"SCHILY.xattr.system.posix_acl_access": "\x02\x00\x00\x00"}
	tmp := dir("./tmp/")
	tmp.h.Mode = 0o1777
	future := reg("future", "")
	future.h.ModTime = built.Add(time.Hour)
	past := reg("past", "")
	past.h.ModTime = built.Add(-time.Hour)
	fsys := open(t, pack(t, dir("./"), sudo, ping, journal, tmp, future, past,
		item{tar.Header{Typeflag: tar.TypeSymlink, Name: "bin", Linkname: "usr/bin"}, ""},
		item{tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}, ""},
		item{tar.Header{Typeflag: tar.TypeBlock, Name: "disk", Mode: 0o660, Devmajor: 259, Devminor: 300}, ""},
		item{tar.Header{Typeflag: tar.TypeFifo, Name: "pipe", Mode: 0o600}, ""},
	))
	for name, mode := range map[string]fs.FileMode{
		"usr/bin/sudo":    0o755 | fs.ModeSetuid,
		"var/log/journal": 0o755 | fs.ModeDir | fs.ModeSetgid,
		"tmp":             0o777 | fs.ModeDir | fs.ModeSticky,
		"null":            0o666 | fs.ModeDevice | fs.ModeCharDevice,
		"disk":            0o660 | fs.ModeDevice,
		"pipe":            0o600 | fs.ModeNamedPipe,
		"bin":             0o777 | fs.ModeSymlink,
	} {
		if _, s := stat(t, fsys, name); s.Mode != mode {
			t.Errorf("%s has mode %v, want %v", name, s.Mode, mode)
		}
	}
	if _, s := stat(t, fsys, "usr/bin/sudo"); s.UID != 0 || s.GID != 5 {
		t.Errorf("sudo belongs to %d:%d", s.UID, s.GID)
	}
	if _, s := stat(t, fsys, "usr/bin/ping"); len(s.Xattrs) != 1 || s.Xattrs["security.capability"] != "\x01\x00\x00\x02" {
		t.Errorf("ping has attributes %q", s.Xattrs)
	}
	// The reader shows the ACL's name with a dot after it; that on disk the
	// kernel finds it is what the test by mounting is for.
	if _, s := stat(t, fsys, "var/log/journal"); len(s.Xattrs) != 1 {
		t.Errorf("the journal has attributes %q", s.Xattrs)
	}
	// Linux's encoding: 259 << 8 | 300 & 0xff | (300 &^ 0xff) << 12.
	if _, s := stat(t, fsys, "disk"); s.Rdev != 0x11032c {
		t.Errorf("the disk has device number %#x", s.Rdev)
	}
	for name, want := range map[string]time.Time{"future": built, "past": built.Add(-time.Hour)} {
		if info, _ := stat(t, fsys, name); !info.ModTime().Equal(want) {
			t.Errorf("%s is of %v, want %v", name, info.ModTime(), want)
		}
	}
	if target, err := fs.ReadLink(fsys, "bin"); err != nil || target != "usr/bin" {
		t.Errorf("bin leads to %q, %v", target, err)
	}
}

// TestHardLinks uses directories of one block and of many, whose entries are
// stored in different places.
func TestHardLinks(t *testing.T) {
	items := []item{reg("a/first", "content"), hardlink("a/second", "a/first"), hardlink("./b/third", "./a/second")}
	for i := range 1000 {
		items = append(items, reg(fmt.Sprintf("many/file-with-a-long-name-%04d", i), ""))
	}
	items = append(items, hardlink("many/file-with-a-long-name-0500-link", "a/first"), hardlink("top", "many/file-with-a-long-name-0007"))
	for _, size := range blockSizes {
		fsys := open(t, packBlocks(t, size, items...))
		_, first := stat(t, fsys, "a/first")
		if first.Nlink != 4 {
			t.Errorf("a/first has %d links, want 4", first.Nlink)
		}
		for _, name := range []string{"a/second", "b/third", "many/file-with-a-long-name-0500-link"} {
			if _, s := stat(t, fsys, name); s.Ino != first.Ino {
				t.Errorf("%s is inode %d, want %d", name, s.Ino, first.Ino)
			}
			if data, err := fs.ReadFile(fsys, name); err != nil || string(data) != "content" {
				t.Errorf("%s holds %q, %v", name, data, err)
			}
		}
		_, a := stat(t, fsys, "top")
		if _, b := stat(t, fsys, "many/file-with-a-long-name-0007"); a.Ino != b.Ino {
			t.Errorf("a link in the root: inodes %d and %d", a.Ino, b.Ino)
		}
	}
}

func TestContentOfAnySize(t *testing.T) {
	random := make([]byte, 3<<20)
	if _, err := rand.Read(random); err != nil {
		t.Fatal(err)
	}
	var items []item
	sizes := []int{0, 1, 100, 1023, 1024, 1025, 4032, 4095, 4096, 4097, 8192, 100_000, len(random)}
	for _, n := range sizes {
		items = append(items, reg(fmt.Sprintf("f%d", n), string(random[:n])))
	}
	for _, size := range blockSizes {
		fsys := open(t, packBlocks(t, size, items...))
		for _, n := range sizes {
			data, err := fs.ReadFile(fsys, fmt.Sprintf("f%d", n))
			if err != nil || !bytes.Equal(data, random[:n]) {
				t.Errorf("blocks of %d: %d bytes came back as %d, %v", size, n, len(data), err)
			}
		}
	}
}

func TestBytesDependOnEntriesOnly(t *testing.T) {
	items := []item{dir("d"), reg("d/a", "1"), reg("d/b", strings.Repeat("2", 10_000)), reg("c", "3"), hardlink("e", "c"), hardlink("f", "c")}
	read := func(items []item) []byte {
		data, err := os.ReadFile(pack(t, items...).Name())
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	first := read(items)
	shuffled := []item{items[3], items[5], items[4], items[2], items[1], items[0]}
	if !bytes.Equal(first, read(shuffled)) {
		t.Error("another order of the entries gives other bytes")
	}
	if bytes.Contains(first, []byte("e\x00\x00\x00test")) || !bytes.Contains(first[1024:1152], []byte("test")) {
		t.Error("the label is not in the superblock")
	}
}

func TestWhatCannotBePackedIsNamed(t *testing.T) {
	for want, items := range map[string][]item{
		"packing /l: it is a hard link to /absent":     {hardlink("l", "absent")},
		"packing /l: it is a hard link to a directory": {dir("d"), hardlink("l", "d")},
		"packing /x: its tar type":                     {{tar.Header{Typeflag: 'S', Name: "x"}, ""}},
		`packing /a: mkfs: duplicate path "/a"`:        {reg("a", ""), reg("./a", "")},
	} {
		if _, err := tryPack(t, 0, items...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := erofs.Create(f, erofs.Options{Label: "longer than fifteen"}); err == nil {
		t.Error("a label of 19 bytes was accepted")
	}
}

func TestNamesStayInside(t *testing.T) {
	fsys := open(t, pack(t, reg("../../etc/passwd", "x"), reg("/abs/file", "y")))
	var names []string
	err := fs.WalkDir(fsys, ".", func(name string, _ fs.DirEntry, err error) error {
		names = append(names, name)
		return err
	})
	if want := []string{".", "abs", "abs/file", "etc", "etc/passwd"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("got %v, %v; want %v", names, err, want)
	}
}

func Example() {
	out, err := os.CreateTemp("", "store")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.Remove(out.Name())
	defer out.Close()
	w, err := erofs.Create(out, erofs.Options{Label: "example", BuildTime: time.Unix(0, 0)})
	if err != nil {
		fmt.Println(err)
		return
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: "etc/motd", Mode: 0o644}
	if err := w.Add(h, strings.NewReader("hello\n")); err != nil {
		fmt.Println(err)
	}
	fmt.Println(w.Close())
	// Output: <nil>
}
