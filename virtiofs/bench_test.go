package virtiofs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/hostdir"
	"github.com/sourcery-zone/sandbox/virtiofs/gate"
	"github.com/sourcery-zone/sandbox/virtiofs/rules"
	"github.com/sourcery-zone/sandbox/virtiofs/virtiofstest"
)

// BenchmarkShare is what requests of a guest take, with the built-in rules and without, one after the other. On a machine that
// does other things too, the time on processors, of virtiofsd, the gate and the guest together, is the figure to trust.
func BenchmarkShare(b *testing.B) {
	set, err := rules.New(rules.Choice{})
	if err != nil {
		b.Fatal(err)
	}
	// The guest, which is another process otherwise, and the gate wait for each other in system calls. With a processor for each
	// only, the runtime would look for more work each time.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(4, runtime.NumCPU())))
	ways := []*benchmarkWay{{name: "plain"}, {name: "judged", judge: set}}
	for _, w := range ways {
		w.prepare(b)
	}
	for _, op := range []struct {
		name string
		do   func(*benchmarkWay) error
	}{
		{"lookup", func(w *benchmarkWay) error { _, err := w.guest.Lookup(w.dir, "file"); return err }},
		{"read", func(w *benchmarkWay) error { _, err := w.guest.Read(w.file, w.handle, 0, 4096); return err }},
		{"open+read+release", func(w *benchmarkWay) error {
			h, err := w.guest.Open(w.file, unix.O_RDONLY)
			if err != nil {
				return err
			}
			_, err = w.guest.Read(w.file, h, 0, 4096)
			return errors.Join(err, w.guest.Release(w.file, h))
		}},
		{"create+write+release+unlink", func(w *benchmarkWay) error {
			w.count++
			name := fmt.Sprint("file-", w.count)
			f, h, err := w.guest.Create(w.dir, name, unix.O_WRONLY)
			if err != nil {
				return err
			}
			return errors.Join(w.guest.Write(f, h, 0, []byte("text")), w.guest.Release(f, h), w.guest.Unlink(w.dir, name), w.guest.Forget(f))
		}},
		{"rename", func(w *benchmarkWay) error {
			w.renamed[0], w.renamed[1] = w.renamed[1], w.renamed[0]
			return w.guest.Rename(w.dir, w.renamed[1], w.dir, w.renamed[0], 0)
		}},
	} {
		for _, w := range ways {
			b.Run(op.name+"/"+w.name, func(b *testing.B) {
				before := cpuTime(b, w.server)
				for b.Loop() {
					if err := op.do(w); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(cpuTime(b, w.server)-before)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

// benchmarkWay is a share with a directory, in which there are a file that is open and one that is renamed.
type benchmarkWay struct {
	name  string
	judge gate.Judge

	guest             *virtiofstest.Guest
	server            int
	dir, file, handle uint64
	count             int
	renamed           [2]string // its name, and the one that it had
}

func (w *benchmarkWay) prepare(b *testing.B) {
	b.Helper()
	w.guest, w.server = benchmarkGuest(b, w.judge)
	w.renamed = [2]string{"renamed", "again"}
	var err error
	if w.dir, err = w.guest.Mkdir(virtiofstest.Root, "dir"); err != nil {
		b.Fatal(err)
	}
	if w.file, w.handle, err = w.guest.Create(w.dir, "file", unix.O_RDWR); err != nil {
		b.Fatal(err)
	}
	_, _, err = w.guest.Create(w.dir, w.renamed[0], unix.O_RDWR)
	if err := errors.Join(err, w.guest.Write(w.file, w.handle, 0, make([]byte, 4096))); err != nil {
		b.Fatal(err)
	}
}

func benchmarkGuest(b *testing.B, judge gate.Judge) (_ *virtiofstest.Guest, server int) {
	b.Helper()
	d, err := Find(b.Context())
	if err != nil {
		b.Skip(err)
	}
	source, err := hostdir.Resolve(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	dir, err := hostdir.Open(source)
	if err != nil {
		b.Fatal(err)
	}
	defer dir.Close()
	socket := b.TempDir() + "/s"
	uid, gid := os.Geteuid(), os.Getegid()
	s, err := d.Start(b.Context(), ServerConfig{
		Directory: dir, Socket: socket, Judge: judge, GuestUID: uid, GuestGID: gid, HostUID: uid, HostGID: gid,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Stop(context.Background()) })
	g, err := virtiofstest.Connect(socket)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(g.Close)
	return g, s.PID()
}

// cpuTime is how long our threads and those of a server have run, in nanoseconds.
func cpuTime(b *testing.B, server int) (sum int64) {
	b.Helper()
	for _, pid := range append(descendants(b, server), os.Getpid()) {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil {
			b.Fatal(err)
		}
		for _, name := range files {
			text, err := os.ReadFile(name)
			if errors.Is(err, os.ErrNotExist) {
				continue // a thread that has ended
			}
			var ran int64
			if _, scanErr := fmt.Sscan(string(text), &ran); err != nil || scanErr != nil {
				b.Fatalf("reading %s: %v", name, errors.Join(err, scanErr))
			}
			sum += ran
		}
	}
	return sum
}
