package virtiofs

import (
	"context"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/hostdir"
	"github.com/sourcery-zone/sandbox/virtiofs/gate"
	"github.com/sourcery-zone/sandbox/virtiofs/rules"
	"github.com/sourcery-zone/sandbox/virtiofs/virtiofstest"
)

// BenchmarkShare is what requests of a guest take, with the built-in rules and without.
func BenchmarkShare(b *testing.B) {
	set, err := rules.New(rules.Choice{})
	if err != nil {
		b.Fatal(err)
	}
	for _, way := range []struct {
		name  string
		judge gate.Judge
	}{{"plain", nil}, {"judged", set}} {
		g := benchmarkGuest(b, way.judge)
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
				for b.Loop() {
					must(op.do())
				}
			})
		}
	}
}

func benchmarkGuest(b *testing.B, judge gate.Judge) *virtiofstest.Guest {
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
	return g
}
