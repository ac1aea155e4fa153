package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

const (
	// clockProbes is how often the guest is asked for its time, one time after
	// the other. The quickest answer says the most.
	clockProbes = 4

	// clockTrust is how long an answer may take that says something about
	// less than its own time. A guest that stands still takes for ever.
	clockTrust = time.Second

	// clockAhead is how far the guest's clock may be ahead before it is held
	// back. No program minds that much, and each correction is a disturbance.
	clockAhead = 20 * time.Millisecond
)

// clockProbe is one question for the guest's time, and its answer.
type clockProbe struct {
	sent      time.Time
	roundTrip time.Duration
	guest     time.Time
}

// SyncClock measures how far the guest's clock is from ours, and sets it right
// if it may be behind, or is ahead by much. It returns by how much it was
// advanced.
func (c *Client) SyncClock(ctx context.Context) (time.Duration, error) {
	// Two at once would both make up for the same distance.
	c.clock.Lock()
	defer c.clock.Unlock()
	probes := make([]clockProbe, clockProbes)
	for i := range probes {
		sent := time.Now()
		guest, err := c.readClock(ctx, 0)
		if err != nil {
			return 0, err
		}
		probes[i] = clockProbe{sent, time.Since(sent), guest}
	}
	by := advance(probes)
	if by != 0 {
		if _, err := c.readClock(ctx, by); err != nil {
			return 0, err
		}
	}
	return by, nil
}

// readClock advances the guest's clock and reads it.
func (c *Client) readClock(ctx context.Context, by time.Duration) (time.Time, error) {
	var reading wire.ClockReading
	if err := c.call(ctx, wire.MethodClock, wire.ClockParams{Advance: by}, &reading); err != nil {
		return time.Time{}, fmt.Errorf("cannot set the guest's clock: %w", err)
	}
	return reading.Time, nil
}

// advance is by how much the guest's clock is to be advanced after the probes,
// of which there is one at least. The guest read its clock some time between
// question and answer, so each probe says how far ahead of ours the clock is at
// least, and at most. It is better ahead than behind: a file that is younger
// than the present is what programs complain about.
func advance(probes []clockProbe) time.Duration {
	first := probes[0]
	least, most := first.guest.Sub(first.sent.Add(first.roundTrip)), first.guest.Sub(first.sent)
	quickest := first.roundTrip
	for _, p := range probes[1:] {
		least = max(least, p.guest.Sub(p.sent.Add(p.roundTrip)))
		most = min(most, p.guest.Sub(p.sent))
		quickest = min(quickest, p.roundTrip)
	}
	switch {
	case quickest > clockTrust:
		return max(-most, 0) // which it is behind for certain
	case least < 0 || least > clockAhead:
		return -least
	}
	return 0
}
