package virtiofs

import (
	"bytes"
	"errors"
	"flag"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/virtiofs/gate"
	"github.com/sourcery-zone/sandbox/virtiofs/rules"
	"github.com/sourcery-zone/sandbox/virtiofs/virtiofstest"
)

// races is how long TestRaces goes on: 0 is for a fixed number of attacks.
var races = flag.Duration("races", 0, "how long guests and the host race in TestRaces (0: a few hundred attacks of each guest)")

// evil is in all that the guests of TestRaces write, but for what they may write anywhere.
const evil = "EVIL"

// A name of what the host has in the share, and what must be in it for ever, whatever it is called above.
var raceFiles = map[string]string{
	".git/HEAD": "ref: refs/heads/main\n", ".git/config": "[core]\n\tbare = false\n", ".git/hooks/pre-commit": "#!/bin/sh\n",
	".husky/pre-push": "#!/bin/sh\n", ".envrc": "true\n", ".env": "SECRET", "src/main.go": "package main\n",
}

// makeRaceTree makes it, as far as it is missing.
func makeRaceTree(dir string) error {
	for name, text := range raceFiles {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		_, err = f.WriteString(text)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// racer is a guest that does what it can to write where it may not, and to read what is hidden.
type racer struct {
	guest
	random *rand.Rand
	nodes  []uint64 // some that it has looked up, at any time
	read   []byte   // what it has got of hidden files
	done   map[string][2]int
}

// pick is one of them.
func (r *racer) pick(names ...string) string { return names[r.random.IntN(len(names))] }

// at looks a directory up, as far as it is there now, or takes one that it has looked up before.
func (r *racer) at(name string) (uint64, bool) {
	if len(r.nodes) > 0 && r.random.IntN(8) == 0 {
		return r.nodes[r.random.IntN(len(r.nodes))], true
	}
	node, err := r.Walk(strings.Split(name, "/")...)
	if err != nil {
		return 0, false
	}
	if len(r.nodes) < 64 {
		r.nodes = append(r.nodes, node)
	} else {
		r.nodes[r.random.IntN(len(r.nodes))] = node
	}
	return node, true
}

// project is where the host's project is at times, or a link that leads there.
func (r *racer) project() string { return r.pick("work", "moved", "away/work", "link") }

// above is a directory that means something by its name.
func (r *racer) above() string {
	return r.project() + r.pick("", "/.git", "/.git/hooks", "/.husky", "/src", "/.git/refs")
}

func (r *racer) last() string {
	return r.pick(".git", "hooks", "config", "config.lock", "pre-commit", ".husky", ".envrc", ".env", "pre-push", "swap", "prep", "x", "commondir", "src")
}

// fill writes something evil.
func (r *racer) fill(dir uint64, name string) error {
	file, handle, err := r.Create(dir, name, unix.O_WRONLY)
	if errors.Is(err, unix.EEXIST) {
		if file, err = r.Lookup(dir, name); err != nil {
			return err
		}
		handle, err = r.Open(file, unix.O_WRONLY|[...]int{0, unix.O_TRUNC, unix.O_APPEND}[r.random.IntN(3)])
	}
	if err != nil {
		return err
	}
	return errors.Join(r.Write(file, handle, 0, []byte("[core]\n\thooksPath = "+evil+"\n")), r.Release(file, handle))
}

// attacks are what it does, by name.
func (r *racer) attacks() map[string]func(dir uint64) error {
	two := func(do func(other uint64) error) func() error {
		return func() error {
			other, ok := r.at(r.pick(r.above(), "play", "play/prep"))
			if !ok {
				return unix.ENOENT
			}
			return do(other)
		}
	}
	return map[string]func(uint64) error{
		"write": func(dir uint64) error { return r.fill(dir, r.last()) },
		"mkdir": func(dir uint64) error { _, err := r.Mkdir(dir, r.last()); return err },
		"symlink": func(dir uint64) error {
			_, err := r.Symlink(dir, r.last(), r.pick("../work/.git", ".git/hooks", "../.env", "/"))
			return err
		},
		"remove": func(dir uint64) error { return r.Unlink(dir, r.last()) },
		"rmdir":  func(dir uint64) error { return r.Rmdir(dir, r.last()) },
		"rename": func(dir uint64) error {
			return two(func(other uint64) error { return r.Rename(dir, r.last(), other, r.last(), 0) })()
		},
		"exchange": func(dir uint64) error {
			return two(func(other uint64) error { return r.Rename(dir, r.last(), other, r.last(), unix.RENAME_EXCHANGE) })()
		},
		"link": func(dir uint64) error {
			return two(func(other uint64) error {
				file, err := r.Lookup(dir, r.last())
				if err != nil {
					return err
				}
				return r.Link(file, other, r.last())
			})()
		},
		"settings": func(dir uint64) error { // good ones are renamed to, and made evil meanwhile
			file, handle, err := r.Create(dir, "config.lock", unix.O_RDWR)
			if err != nil {
				return err
			}
			good := []byte("[core]\n\tbare = false\n[user]\n\tname = guest\n")
			err = r.Write(file, handle, 0, good)
			err = errors.Join(err, r.Rename(dir, "config.lock", dir, "config", 0))
			return errors.Join(err, r.Write(file, handle, 0, bytes.Repeat([]byte(evil), 10)), r.Release(file, handle))
		},
		"mode": func(dir uint64) error {
			file, err := r.Lookup(dir, r.last())
			if err != nil {
				return err
			}
			return r.Setattr(file, virtiofstest.Attr{Mode: new(uint32(0o755)), Size: new(uint64(0))})
		},
		"times": func(dir uint64) error { // the one that is set aside, which no file gets, and others
			file, err := r.Lookup(dir, r.last())
			if err != nil {
				return err
			}
			attr := virtiofstest.Attr{MTime: new([...]uint64{uint64(gate.TouchTime.Sec), 1234567}[r.random.IntN(2)])}
			if handle, err := r.Open(file, unix.O_WRONLY); err == nil {
				attr.Handle = &handle
				defer func() { _ = r.Release(file, handle) }()
			}
			return r.Setattr(file, attr)
		},
		"read": func(dir uint64) error {
			file, err := r.Lookup(dir, r.pick(".env", "swap", "x"))
			if err != nil {
				return err
			}
			handle, err := r.Open(file, unix.O_RDONLY)
			if err != nil {
				return err
			}
			data, err := r.Read(file, handle, 0, 4096)
			if bytes.Contains(data, []byte("SECRET")) {
				r.read = data
			}
			return errors.Join(err, r.Release(file, handle))
		},
	}
}

// once makes an attack.
func (r *racer) once() {
	dir, ok := r.at(r.pick(r.above(), r.above(), "play", "play/prep", "away"))
	if !ok {
		return
	}
	all := r.attacks()
	name := r.pick(slices.Sorted(maps.Keys(all))...)
	count := r.done[name]
	count[0]++
	if errors.Is(all[name](dir), unix.EACCES) {
		count[1]++
	}
	r.done[name] = count
}

// checkRace looks for what guests must not have done.
func checkRace(t *testing.T, share string) {
	t.Helper()
	_ = filepath.WalkDir(share, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil // it has been renamed meanwhile
		}
		inside, _ := filepath.Rel(share, name)
		if info, err := entry.Info(); err == nil && info.ModTime().After(time.Now().Add(24*time.Hour)) {
			t.Errorf("%s was modified at %v", inside, info.ModTime())
		}
		parts := strings.Split(inside, "/")
		in := func(what string) bool { return slices.Contains(parts, what) }
		last := parts[len(parts)-1]
		frozen := in(".husky") || last == ".envrc" || in(".git") && !in("refs") && (in("hooks") || last == "config" || last == "commondir" || last == ".git")
		if !frozen {
			return nil
		}
		if entry.Type()&fs.ModeSymlink != 0 {
			t.Errorf("%s is a symbolic link", inside)
		}
		if text, err := os.ReadFile(name); err == nil && bytes.Contains(text, []byte(evil)) {
			t.Errorf("%s holds %q", inside, text)
		}
		return nil
	})
}

// Several guests, of which each knows only what it has looked up, and the host rename, swap and link all the time what is
// above of what is protected, and touch files as the agent does for programs that watch them. It can go on for as long as
// one likes:
//
//	go test ./virtiofs -run TestRaces -races 10m -timeout 0 -v
func TestRaces(t *testing.T) {
	set, err := rules.New(rules.Choice{})
	if err != nil {
		t.Fatal(err)
	}
	c := realConfig(t, os.Geteuid())
	share := c.Directory.Path()
	if err := errors.Join(makeRaceTree(share+"/work"), os.MkdirAll(share+"/play/prep", 0o755), os.MkdirAll(share+"/away", 0o755)); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	const fewAttacks = 300
	goesOn := func(attacks int) bool {
		if *races == 0 {
			return attacks < fewAttacks
		}
		return time.Since(begun) < *races && !t.Failed()
	}
	var racers []*racer
	var group sync.WaitGroup
	for i := range 3 {
		c.Socket += "x"
		c.Judge, c.Touches = set, true
		s, err := realDaemon(t).Start(t.Context(), c)
		skipWithoutGate(t, err)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stop(t, s) })
		r := &racer{guest: guest{connect(t, c.Socket), t}, random: rand.New(rand.NewPCG(uint64(i), uint64(begun.UnixNano()))), done: map[string][2]int{}}
		racers = append(racers, r)
		group.Go(func() {
			for n := 0; goesOn(n); n++ {
				r.once()
			}
		})
	}
	stopped, hostDone := make(chan struct{}), make(chan struct{})
	swaps := 0
	go func() {
		defer close(hostDone)
		random := rand.New(rand.NewPCG(99, uint64(begun.UnixNano())))
		names := []string{"/work", "/moved", "/away/work"}
		for ; ; swaps++ {
			select {
			case <-stopped:
				return
			default:
			}
			from, to := names[random.IntN(len(names))], names[random.IntN(len(names))]
			_ = os.Rename(share+from, share+to)
			_ = os.Symlink([...]string{"work", "work/.git", "play"}[random.IntN(3)], share+"/link.new")
			_ = os.Rename(share+"/link.new", share+"/link")
			if swaps%50 == 0 {
				_ = makeRaceTree(share + names[random.IntN(len(names))])
				_ = errors.Join(os.MkdirAll(share+"/play/prep", 0o755), os.MkdirAll(share+"/away", 0o755))
				checkRace(t, share)
			}
		}
	}()
	group.Wait()
	close(stopped)
	<-hostDone
	checkRace(t, share)
	for i, r := range racers {
		if r.read != nil {
			t.Errorf("guest %d has read %q", i, r.read)
		}
		t.Logf("guest %d: attacks, and how many of them were refused: %v", i, r.done)
	}
	t.Logf("the host has renamed and linked %d times", swaps)
}
