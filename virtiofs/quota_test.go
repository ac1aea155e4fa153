package virtiofs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/tree"
	"github.com/sourcery-zone/sandbox/virtiofs/virtiofstest"
)

// limited starts a server for a directory that may hold so many bytes.
func limited(t *testing.T, uid int, quota int64, told *events) (guest, *Server, string) {
	t.Helper()
	c := realConfig(t, uid)
	c.Quota, c.Judged = quota, told.add
	s, err := realDaemon(t).Start(t.Context(), c)
	skipWithoutGate(t, err)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return guest{connect(t, c.Socket), t}, s, c.Directory.Path()
}

func sizeOf(t *testing.T, dir string) int64 {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := tree.Measure(f)
	if err != nil {
		t.Fatal(err)
	}
	return size.Bytes
}

// until does something until it fails, which it must by EDQUOT before it was done that often.
func until(t *testing.T, most int, do func(i int) error) {
	t.Helper()
	for i := range most {
		if err := do(i); err != nil {
			if !errors.Is(err, unix.EDQUOT) {
				t.Errorf("%d: %v", i, err)
			}
			return
		}
	}
	t.Errorf("it was done %d times", most)
}

// opened makes a file and opens it.
func (g guest) opened(name string, flags int) (file, handle uint64) {
	g.t.Helper()
	file, handle, err := g.Create(virtiofstest.Root, name, flags)
	if err != nil {
		g.t.Fatal(err)
	}
	return file, handle
}

// forgetAll closes what is open, and forgets files, by the numbers that virtiofsd gives them one after the other.
func (g guest) forgetAll() {
	g.t.Helper()
	for node := range uint64(600) {
		for handle := range uint64(10) {
			if node < 10 {
				_ = g.Release(node, handle) // most of which there are not
			}
		}
		if node > virtiofstest.Root {
			if err := g.Forget(node); err != nil {
				g.t.Fatal(err)
			}
		}
	}
}

func TestGuestCannotExceedAQuota(t *testing.T) {
	const quota, step = 1 << 20, 16 << 10
	data := bytes.Repeat([]byte("x"), step)
	attacks := map[string]func(t *testing.T, g guest){
		"write": func(t *testing.T, g guest) {
			file, handle := g.opened("file", unix.O_RDWR)
			until(t, quota/step+1, func(i int) error { return g.Write(file, handle, uint64(i*step), data) })
			// What is there already can be written again, and made shorter.
			if err := errors.Join(g.Write(file, handle, 0, data), g.Setattr(file, virtiofstest.Attr{Size: new(uint64(1)), Handle: &handle})); err != nil {
				t.Error(err)
			}
		},
		"write single bytes": func(t *testing.T, g guest) {
			file, handle := g.opened("file", unix.O_RDWR)
			until(t, quota/4096+1, func(i int) error { return g.Write(file, handle, uint64(i*4096), []byte("x")) })
		},
		"append": func(t *testing.T, g guest) {
			file, handle := g.opened("file", unix.O_RDWR|unix.O_APPEND)
			until(t, quota/step+1, func(i int) error { return g.Write(file, handle, uint64(i*step), data) })
		},
		"fill a hole": func(t *testing.T, g guest) {
			file, handle := g.opened("file", unix.O_RDWR)
			if err := g.Setattr(file, virtiofstest.Attr{Size: new(uint64(4 * quota))}); err != nil {
				t.Fatal(err)
			}
			until(t, quota/step+1, func(i int) error { return g.Write(file, handle, uint64(i*step), data) })
		},
		"fill a hole from its end": func(t *testing.T, g guest) {
			file, handle := g.opened("file", unix.O_RDWR)
			until(t, quota/step+1, func(i int) error { return g.Write(file, handle, uint64(4*quota-i*step), data) })
		},
		"allocate": func(t *testing.T, g guest) {
			file, handle := g.opened("file", unix.O_RDWR)
			until(t, quota/step+1, func(i int) error { return g.Fallocate(file, handle, uint64(i*step), step, 0) })
			if err := g.Fallocate(file, handle, 0, 2*quota, 0); !errors.Is(err, unix.EDQUOT) {
				t.Errorf("all at once: %v", err)
			}
			if err := g.Fallocate(file, handle, quota, quota, unix.FALLOC_FL_KEEP_SIZE); !errors.Is(err, unix.EOPNOTSUPP) {
				t.Errorf("after the end: %v", err)
			}
			if err := g.Fallocate(file, handle, 0, step, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE); err != nil {
				t.Errorf("making a hole: %v", err)
			}
		},
		"write to what is removed": func(t *testing.T, g guest) {
			last, lastHandle := g.opened("file", unix.O_RDWR)
			for name := range 4 {
				file, handle := g.opened(fmt.Sprint(name), unix.O_RDWR)
				if err := g.unlink(fmt.Sprint(name)); err != nil {
					t.Fatal(err)
				}
				for i := range quota / 4 / step {
					if err := g.Write(file, handle, uint64(i*step), data); err != nil && !errors.Is(err, unix.EDQUOT) {
						t.Fatal(err)
					}
				}
			}
			until(t, 2, func(i int) error { return g.Write(last, lastHandle, uint64(i*step), data) })
		},
		"copy": func(t *testing.T, g guest) {
			from, fromHandle := g.opened("from", unix.O_RDWR)
			if err := g.Write(from, fromHandle, 0, data); err != nil {
				t.Fatal(err)
			}
			file, handle := g.opened("file", unix.O_RDWR)
			until(t, quota/step+1, func(i int) error { return g.Copy(from, fromHandle, file, handle, uint64(i*step), step) })
		},
		"empty files": func(t *testing.T, g guest) {
			until(t, quota/4096+1, func(i int) error { return g.create(fmt.Sprint(i)) })
		},
		"empty directories": func(t *testing.T, g guest) {
			until(t, quota/4096+1, func(i int) error { return g.mkdir(fmt.Sprint(i)) })
		},
		"symbolic links": func(t *testing.T, g guest) {
			until(t, quota/4096+1, func(i int) error { return g.symlink(fmt.Sprint(i), strings.Repeat("x", 4000)) })
		},
		"pipes": func(t *testing.T, g guest) {
			until(t, quota/4096+1, func(i int) error { return g.mknod(fmt.Sprint(i), unix.S_IFIFO|0o600) })
		},
	}
	for name, attack := range attacks {
		t.Run(name, func(t *testing.T) {
			told := &events{}
			g, s, dir := limited(t, os.Geteuid(), quota, told)
			attack(t, g)
			if size := sizeOf(t, dir); size > quota {
				t.Errorf("it holds %d bytes", size)
			}
			if used, limit := s.Usage(); used > limit || limit != quota {
				t.Errorf("%d of %d are used", used, limit)
			}
			if said := told.take(); !strings.Contains(said, "refused by rule quota") {
				t.Errorf("nothing tells of it:\n%s", said)
			}
			// What the host removes makes room when the guest has let go of it.
			entries, err := os.ReadDir(dir)
			for _, e := range entries {
				err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
			}
			if err != nil {
				t.Fatal(err)
			}
			g.forgetAll()
			again := func(do func() error) error {
				for {
					if err := do(); !errors.Is(err, unix.EDQUOT) {
						return err
					} // it may not be measured yet
				}
			}
			err = again(func() error { return g.create("after") })
			if err := errors.Join(err, again(func() error { return g.write("after", string(data)) })); err != nil {
				t.Error(err)
			}
		})
	}
}

// Hard links count once when it is measured, so that they cannot make room either.
func TestQuotaOfHardLinks(t *testing.T) {
	const quota = 1 << 20
	g, _, dir := limited(t, os.Geteuid(), quota, &events{})
	if err := errors.Join(g.create("file"), g.write("file", strings.Repeat("x", 100<<10))); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * quota / tree.MinSize {
		if err := g.link("file", fmt.Sprint(i)); err != nil && !errors.Is(err, unix.EDQUOT) {
			t.Fatal(err)
		}
	}
	if size := sizeOf(t, dir); size > quota {
		t.Errorf("it holds %d bytes", size)
	}
}

// A guest hides what it has from an ordinary user who measures.
func TestQuotaOfWhatCannotBeRead(t *testing.T) {
	needRoot(t)
	const quota, step = 1 << 20, 64 << 10
	config := realConfig(t, nobody)
	config.Quota = quota
	order := helperOrder{Daemon: realDaemon(t), Config: config}
	h := startHelper(t, order, inUser(nobody))
	if h.Error != "" {
		t.Fatal(h.Error)
	}
	g := guest{connect(t, config.Socket), t}
	if err := g.mkdir("dir"); err != nil {
		t.Fatal(err)
	}
	dir := g.node("dir")
	file, handle, err := g.Create(dir, "file", unix.O_RDWR)
	if err := errors.Join(err, g.Setattr(dir, virtiofstest.Attr{Mode: new(uint32(0))})); err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("x"), step)
	until(t, quota/step+1, func(i int) error { return g.Write(file, handle, uint64(i*step), data) })
	if size := sizeOf(t, config.Directory.Path()); size > quota {
		t.Errorf("it holds %d bytes", size)
	}
	g.Close()
	// It cannot be started anew as if nothing were there.
	h = startHelper(t, order, inUser(nobody))
	if !strings.Contains(h.Error, "cannot be measured") || !strings.Contains(h.Error, "chmod -R u+rwX") {
		t.Errorf("a start: %s", h.Error)
	}
}
