package rootfs_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	goerofs "github.com/erofs/go-erofs"

	"github.com/sourcery-zone/sandbox/image/erofs"
	"github.com/sourcery-zone/sandbox/image/rootfs"
)

func TestFilter(t *testing.T) {
	f := rootfs.Filter{"dev/", "usr/share/locale", "usr/lib/*/gconv/IBM[0-3]*"}
	for name, want := range map[string]bool{
		"dev": false, "dev/stray": true, "dev/a/b": true,
		"usr/share/locale": true, "usr/share/locale/de/x": true, "usr/share/locales": false, "usr/share": false,
		"usr/lib/a/gconv/IBM037.so": true, "usr/lib/a/gconv/IBM437.so": false, "usr/lib/a/b/gconv/IBM037.so": false,
	} {
		if got := f.Covers(name); got != want {
			t.Errorf("%s is covered: %v, want %v", name, got, want)
		}
	}
}

// system is a tar stream of files by their names; one that ends in a slash is a
// directory.
func system(t *testing.T, names ...string) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range names {
		h := &tar.Header{Name: name, Mode: 0o755, Typeflag: tar.TypeDir}
		data := ""
		if !strings.HasSuffix(name, "/") {
			data = strings.Repeat("x", 5000)
			h.Typeflag, h.Size = tar.TypeReg, int64(len(data))
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// pack packs a system, and opens the store for reading.
func pack(t *testing.T, r io.Reader, o rootfs.Options) (fs.FS, error) {
	t.Helper()
	o.Options = erofs.Options{Label: "test", BuildTime: time.Unix(1, 0), TempDir: t.TempDir()}
	out, err := os.Create(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	if err := rootfs.Pack(r, out, o); err != nil {
		return nil, err
	}
	store, err := goerofs.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	return store, nil
}

func TestPack(t *testing.T) {
	var visited []string
	store, err := pack(t, system(t, "./", "etc/", "etc/hosts", "bin/", "bin/one", "bin/two", "boot/", "boot/vmlinuz"), rootfs.Options{
		Overlay: []rootfs.Entry{{Name: "etc/hosts", Mode: 0o644, Data: "ours"}, {Name: "home/", Mode: 0o755}, {Name: "link", Link: "bin/one"}},
		Visit: func(name string, h *tar.Header, r io.Reader) (io.Reader, error) {
			visited = append(visited, name)
			if name == "boot/vmlinuz" {
				return nil, fmt.Errorf("the kernel: %w", rootfs.ErrSkip)
			}
			return r, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(visited, " "); got != " etc bin bin/one bin/two boot boot/vmlinuz" {
		t.Errorf("visited were %q", got)
	}
	if data, err := fs.ReadFile(store, "etc/hosts"); err != nil || string(data) != "ours" {
		t.Errorf("what the overlay replaces is %q, %v", data, err)
	}
	if target, err := fs.ReadLink(store, "link"); err != nil || target != "bin/one" {
		t.Errorf("what the overlay adds is %q, %v", target, err)
	}
	if info, err := fs.Stat(store, "home"); err != nil || !info.IsDir() {
		t.Errorf("a directory of the overlay is %v, %v", info, err)
	}
	if _, err := fs.Stat(store, "boot/vmlinuz"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was skipped: %v", err)
	}
	one, err1 := fs.Stat(store, "bin/one")
	two, err2 := fs.Stat(store, "bin/two")
	if err := errors.Join(err1, err2); err != nil || one.Sys().(*goerofs.Stat).Ino != two.Sys().(*goerofs.Stat).Ino {
		t.Errorf("equal files are stored twice: %v", err)
	}
}

func TestPackEndsWithTheFirstError(t *testing.T) {
	broken := errors.New("broken")
	_, err := pack(t, system(t, "./", "a"), rootfs.Options{
		Visit: func(string, *tar.Header, io.Reader) (io.Reader, error) { return nil, broken },
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	half := system(t, "./", "a", "b")
	half.Truncate(half.Len() / 2)
	if _, err := pack(t, half, rootfs.Options{}); err == nil || !strings.Contains(err.Error(), "reading the system") {
		t.Errorf("half a stream: %v", err)
	}
}
