package agent

import (
	"testing"
	"time"
)

func TestAdvanceOfAClock(t *testing.T) {
	const ms = time.Millisecond
	start := time.Date(2026, 11, 26, 8, 0, 0, 0, time.UTC)
	// A probe of a clock that is ahead, read after there, with the answer back.
	probe := func(ahead, there, back time.Duration) clockProbe {
		return clockProbe{start, there + back, start.Add(there + ahead)}
	}
	for _, test := range []struct {
		name   string
		probes []clockProbe
		want   time.Duration
	}{
		{"right, and seen so at once", []clockProbe{probe(0, 0, 0)}, 0},
		{"behind: ahead by the way back", []clockProbe{probe(-300*ms, 2*ms, 3*ms)}, 303 * ms},
		{"may be behind", []clockProbe{probe(0, 2*ms, 3*ms)}, 3 * ms},
		{"a little ahead", []clockProbe{probe(10*ms, 2*ms, 3*ms)}, 0},
		{"far ahead", []clockProbe{probe(200*ms, 2*ms, 3*ms)}, -197 * ms},
		{"the best of several", []clockProbe{probe(-300*ms, 2*ms, 500*ms), probe(-300*ms, 900*ms, 1*ms), probe(-300*ms, 2*ms, 3*ms)}, 301 * ms},
		{"too slow to tell", []clockProbe{probe(0, 2*time.Second, 5*time.Second)}, 0},
		{"too slow to tell how much, but behind", []clockProbe{probe(-time.Hour, 2*time.Second, 5*time.Second)}, time.Hour - 2*time.Second},
	} {
		if got := advance(test.probes); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}
