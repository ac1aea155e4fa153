package virtiofs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/hostdir"
	"github.com/sourcery-zone/sandbox/virtiofs/gate"
	"github.com/sourcery-zone/sandbox/virtiofs/rules"
	"github.com/sourcery-zone/sandbox/virtiofs/virtiofstest"
)

// BenchmarkShare is what requests of a guest take, with the built-in rules and without. On a machine that does other things
// too, the time on processors, of virtiofsd, the gate and the guest together, is the figure to trust.
func BenchmarkShare(b *testing.B) {
	set, err := rules.New(rules.Choice{})
	if err != nil {
		b.Fatal(err)
	}
	for _, way := range []struct {
		name  string
		judge gate.Judge
	}{{"plain", nil}, {"judged", set}} {
		g, server := benchmarkGuest(b, way.judge)
		must := func(err error) {
			if err != nil {
				b.Fatal(err)
			}
		}
		dir, err := g.Mkdir(virtiofstest.Root, "dir")
		must(err)
		file, handle, err := g.Create(dir, "file", unix.O_RDWR)
		must(err)
		must(g.Write(file, handle, 0, make([]byte, 4096)))
		i := 0
		for _, op := range []struct {
			name string
			do   func() error
		}{
			{"lookup", func() error { _, err := g.Lookup(dir, "file"); return err }},
			{"read", func() error { _, err := g.Read(file, handle, 0, 4096); return err }},
			{"open+read+release", func() error {
				h, err := g.Open(file, unix.O_RDONLY)
				must(err)
				_, err = g.Read(file, h, 0, 4096)
				must(err)
				return g.Release(file, h)
			}},
			{"create+write+release+unlink", func() error {
				i++
				name := fmt.Sprint(i)
				f, h, err := g.Create(dir, name, unix.O_WRONLY)
				must(err)
				must(g.Write(f, h, 0, []byte("text")))
				must(g.Release(f, h))
				return g.Unlink(dir, name)
			}},
			{"rename", func() error {
				i++
				from, to := "file", "file2"
				if i%2 == 0 {
					from, to = to, from
				}
				err := g.Rename(dir, from, dir, to, 0)
				if err != nil { // it began with the other name
					err = g.Rename(dir, to, dir, from, 0)
				}
				return err
			}},
		} {
			b.Run(op.name+"/"+way.name, func(b *testing.B) {
				before := cpuTime(b, server)
				for b.Loop() {
					must(op.do())
				}
				b.ReportMetric(float64(cpuTime(b, server)-before)/float64(b.N), "cpu-ns/op")
			})
		}
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
