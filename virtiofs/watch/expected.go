package watch

import (
	"path"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/virtiofs/gate"
)

// deed is something that is done to a name.
type deed struct {
	path string
	kind kind
}

type kind int

// The kinds, of which each is one event of the kernel's.
const (
	created kind = iota
	closed       // after it was open for writing
	removed
	movedFrom
	movedTo
)

const (
	// patience is how long the kernel's event of a deed is waited for. A call that fails has none, and what the host does
	// to that name within this time is taken for it.
	patience = 5 * time.Second
	// maxExpected bounds the deeds of which the events have not come.
	maxExpected = 16384
)

// expected are the guest's deeds of which the kernel's events have not come yet.
type expected map[deed]*expectation

type expectation struct {
	times int       // it was done
	last  time.Time // when it was
	opens bool      // what it makes is open for writing
}

func (e expected) add(d deed, now time.Time, opens bool) {
	x := e[d]
	if x == nil || now.Sub(x.last) > patience {
		if len(e) >= maxExpected {
			clear(e) // the guest makes many, of which it is told now
		}
		x = &expectation{}
		e[d] = x
	}
	x.times, x.last, x.opens = x.times+1, now, opens
}

// does notes what the guest is about to do.
func (e expected) does(ev gate.Event, now time.Time) {
	if ev.Refused != "" {
		return
	}
	switch ev.Verb {
	case gate.Create:
		e.add(deed{ev.Path, created}, now, true)
	case gate.Mkdir, gate.Mknod, gate.Symlink:
		e.add(deed{ev.Path, created}, now, false)
	case gate.Link:
		e.add(deed{ev.To, created}, now, false)
	case gate.Write:
		e.add(deed{ev.Path, closed}, now, false)
	case gate.Remove:
		e.add(deed{ev.Path, removed}, now, false)
	case gate.Rename:
		e.add(deed{ev.Path, movedFrom}, now, false)
		e.add(deed{ev.To, movedTo}, now, false)
	case gate.Swap:
		for _, p := range []string{ev.Path, ev.To} {
			e.add(deed{p, movedFrom}, now, false)
			e.add(deed{p, movedTo}, now, false)
		}
	}
}

// is tells whether what has happened is a deed of the guest's, which is expected once less then.
func (e expected) is(d deed, now time.Time) bool {
	x := e[d]
	if x == nil {
		return false
	}
	if x.times--; x.times == 0 {
		delete(e, d)
	}
	if now.Sub(x.last) > patience {
		delete(e, d)
		return false
	}
	// Not before: a call that finds the file there opens it by another.
	if d.kind == created && x.opens {
		e.add(deed{d.path, closed}, now, false)
	}
	return true
}

// Skipped tells whether a directory of the share is not watched, whose path is as those of a gate are: what tools put
// there is thousands of files at a time, of which programs that watch a project leave out most.
func Skipped(dir string) bool {
	name := path.Base(dir)
	return name == "node_modules" || name == "objects" && strings.HasSuffix(path.Dir(dir), ".git")
}
