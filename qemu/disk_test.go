package qemu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// newDisk makes a disk of that many layers.
func newDisk(t *testing.T, layers int) (paths []string) {
	t.Helper()
	dir := t.TempDir()
	for n := range layers {
		path := filepath.Join(dir, fmt.Sprintf("%d, of a disk.qcow2", n))
		err := CreateDisk(path, 64<<20)
		if n > 0 {
			err = CreateLayer(path, filepath.Base(paths[n-1]), 64<<20)
		}
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

func TestDiskIsThinAndPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a, b: disk.qcow2")
	if err := os.WriteFile(path+".new", make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := CreateDisk(path, 20<<30); err != nil {
		t.Fatal(err)
	}
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		t.Fatal(err)
	}
	if stat.Blocks*512 > 64<<10 || stat.Mode&0o777 != 0o600 {
		t.Errorf("the new disk takes %d bytes and has the mode %#o, want next to nothing and 0600", stat.Blocks*512, stat.Mode&0o777)
	}
	if size, err := CheckDisk([]string{path}); err != nil || size != 20<<30 {
		t.Errorf("it has %d bytes, %v", size, err)
	}
	if _, err := os.Stat(path + ".new"); !os.IsNotExist(err) {
		t.Errorf("an unfinished disk is left: %v", err)
	}
}

func TestDiskThatCannotBeMadeLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	if err := os.Mkdir(path, 0o700); err != nil { // which no file replaces
		t.Fatal(err)
	}
	if err := CreateDisk(path, 64<<20); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v, want one that names the path", err)
	}
	if _, err := os.Lstat(path + ".new"); !os.IsNotExist(err) {
		t.Errorf("left behind: %v", err)
	}
}

// A layer is what this test puts in its place; QEMU has no say.
func TestLayersThatAreNotAsTheyWereMadeAreNotOpened(t *testing.T) {
	canary := filepath.Join(t.TempDir(), "canary")
	if err := os.WriteFile(canary, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	replace := func(put func(path string) error) func(string) error {
		return func(path string) error { return errors.Join(os.Remove(path), put(path)) }
	}
	for what, change := range map[string]func(path string) error{
		"a link":      replace(func(path string) error { return os.Symlink(canary, path) }),
		"a fifo":      replace(func(path string) error { return unix.Mkfifo(path, 0o600) }),
		"a directory": replace(func(path string) error { return os.Mkdir(path, 0o700) }),
		"a raw image": func(path string) error { return os.WriteFile(path, make([]byte, 1<<20), 0o600) },
		"an image that names nothing below": func(path string) error {
			if strings.HasPrefix(filepath.Base(path), "0") {
				return CreateLayer(path, "canary", 64<<20)
			}
			return CreateDisk(path, 64<<20)
		},
		"an image over another": func(path string) error { return CreateLayer(path, filepath.Base(path), 64<<20) },
	} {
		for changed := range 3 {
			paths := newDisk(t, 3)
			if err := change(paths[changed]); err != nil {
				t.Fatal(err)
			}
			if _, err := CheckDisk(paths); err == nil || !strings.Contains(err.Error(), paths[changed]) {
				t.Errorf("%s in place of layer %d: %v, want an error that names it", what, changed, err)
			}
			c := Config{Kernel: emptyKernel(t), Drives: []Drive{{ID: "disk", Format: "qcow2", Path: paths[2], Backing: paths[:2]}}}
			files := &Files{}
			_, _, err := c.inherit(files, Capabilities{})
			files.Close()
			if err == nil {
				t.Errorf("%s in place of layer %d was opened for QEMU", what, changed)
			}
		}
	}
}

func TestOnlyLayersToBeMergedAreOpenedForWriting(t *testing.T) {
	paths := newDisk(t, 4)
	c := Config{Kernel: emptyKernel(t), Drives: []Drive{{ID: "disk", Format: "qcow2", Path: paths[3], Backing: paths[:3], Mergeable: 1}}}
	opened, in, err := c.inherit(&Files{}, Capabilities{})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	writable := map[string]bool{}
	for _, f := range in.listed {
		writable[f.Path] = f.Writable
	}
	for n, want := range []bool{false, false, true, true} {
		flags, err := unix.FcntlInt(in.list[n+1].Fd(), unix.F_GETFL, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := flags&unix.O_ACCMODE == unix.O_RDWR; got != want || writable[paths[n]] != want {
			t.Errorf("layer %d is writable: %t, and said to be: %t; want %t", n, got, writable[paths[n]], want)
		}
	}
	if d := opened.Drives[0]; d.FD != 7 || !slices.Equal(d.BackingFDs, []int{4, 5, 6}) {
		t.Errorf("QEMU is told %+v", d)
	}
}
