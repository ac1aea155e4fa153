package watch

import (
	"fmt"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/virtiofs/gate"
)

func TestExpectedDeeds(t *testing.T) {
	e, now := expected{}, time.Now()
	is := func(want bool, k kind, after time.Duration) {
		t.Helper()
		if got := e.is(deed{"f", k}, now.Add(after)); got != want {
			t.Errorf("the deed %d after %v is the guest's: %v", k, after, got)
		}
	}
	// What is opened twice is closed twice; the third time, it was the host.
	e.does(gate.Event{Verb: gate.Write, Path: "f"}, now)
	e.does(gate.Event{Verb: gate.Write, Path: "f"}, now)
	is(true, closed, 0)
	is(true, closed, 0)
	is(false, closed, 0)
	// virtiofsd tries to make a file that is there already, and opens it then: that is closed once.
	e.does(gate.Event{Verb: gate.Create, Path: "f"}, now)
	e.does(gate.Event{Verb: gate.Write, Path: "f"}, now)
	is(true, closed, 0)
	is(false, closed, 0)
	is(true, created, 0) // which the host may have done: once in a while it is not told
	// One that is made is closed as well.
	e = expected{}
	e.does(gate.Event{Verb: gate.Create, Path: "f"}, now)
	is(true, created, 0)
	is(true, closed, 0)
	is(false, closed, 0)
	// What fails has no event, and counts for a while only.
	e.does(gate.Event{Verb: gate.Write, Path: "f"}, now)
	is(false, closed, patience+1)
	e.does(gate.Event{Verb: gate.Remove, Path: "f"}, now)
	e.does(gate.Event{Verb: gate.Remove, Path: "f"}, now.Add(patience+1))
	is(true, removed, patience+1)
	is(false, removed, patience+1)
	// A guest that floods us takes no memory for it.
	for i := range 3 * maxExpected {
		e.does(gate.Event{Verb: gate.Rename, Path: fmt.Sprint(i), To: fmt.Sprint(-i)}, now)
		if len(e) > maxExpected {
			t.Fatalf("%d are expected", len(e))
		}
	}
}
