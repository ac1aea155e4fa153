//go:build linux

package guest

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"golang.org/x/sys/unix"
)

// uptime is the time since the kernel started, on the clock that stands still
// while the guest is suspended, as the kernel's log does.
func uptime() time.Duration {
	var now unix.Timespec
	// The clock always exists, and the call has no other way to fail.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return time.Duration(now.Nano())
}

// progress is how far the guest's start has come.
type progress struct {
	clock func() time.Duration

	mu      sync.Mutex
	status  agent.Status
	failure error
	changed chan struct{} // closed and replaced at each change
}

func newProgress(clock func() time.Duration) *progress {
	return &progress{
		clock:   clock,
		status:  agent.Status{Reached: make(map[agent.Stage]time.Duration)},
		changed: make(chan struct{}),
	}
}

// update changes the status and wakes those who wait.
func (p *progress) update(change func(*agent.Status)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.status)
	close(p.changed)
	p.changed = make(chan struct{})
}

// reach records that a stage was reached now, unless it was before.
func (p *progress) reach(stage agent.Stage) {
	now := p.clock()
	p.update(func(s *agent.Status) {
		if _, before := s.Reached[stage]; !before {
			s.Reached[stage] = now
		}
	})
}

// fail records why the stages that are not reached yet never will be.
func (p *progress) fail(err error) {
	p.update(func(s *agent.Status) {
		if p.failure == nil {
			p.failure = err
			s.Failure = err.Error()
		}
	})
}

// snapshot returns a copy of the status.
func (p *progress) snapshot() agent.Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	status := p.status
	status.Reached = maps.Clone(p.status.Reached)
	status.Uptime = p.clock()
	return status
}

// wait returns when the stage has been reached or never will be.
func (p *progress) wait(ctx context.Context, stage agent.Stage) error {
	for {
		p.mu.Lock()
		_, reached := p.status.Reached[stage]
		failure, changed := p.failure, p.changed
		p.mu.Unlock()
		switch {
		case reached:
			return nil
		case failure != nil:
			return failure
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
