package supervisor

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/virtiofs/gate"
)

const (
	// auditBacklog is how many entries wait for the disk at most. Beyond, they are left out: the guest, which waits while
	// its doing is noted, is never held up by a slow disk.
	auditBacklog = 8192

	// auditBatch is how many are written at once.
	auditBatch = 512

	// auditRest is how long entries are collected after some were written. A guest that makes many files has each
	// noted, and would wake the writer for each.
	auditRest = 20 * time.Millisecond

	// refusalRepeat is when the same refusal is told anew, and maxRepeats bounds how many are remembered for that.
	refusalRepeat = time.Minute
	maxRepeats    = 4096

	// shownRefusals is how many the state shows, and refusalInterval how often it changes for them.
	shownRefusals   = 32
	refusalInterval = time.Second
)

// auditor keeps the record of what the guest does to its shares.
type auditor struct {
	entries chan machine.AuditEntry
	leftOut atomic.Uint64
	stop    chan struct{}
	ended   chan struct{}

	log    io.WriteCloser
	logger *slog.Logger
	show   func([]machine.Refusal) error

	// Of the goroutine that writes.
	told     map[refusalKey]time.Time
	refusals []machine.Refusal // the last ones
	news     bool              // that show does not know yet
}

// refusalKey is what makes two refusals the same.
type refusalKey struct {
	share, path, rule string
	verb              gate.Verb
}

// newAuditor writes to the log, which it closes, and calls show with the last refusals.
func newAuditor(log io.WriteCloser, logger *slog.Logger, show func([]machine.Refusal) error) *auditor {
	a := &auditor{
		entries: make(chan machine.AuditEntry, auditBacklog), stop: make(chan struct{}), ended: make(chan struct{}), log: log, logger: logger, show: show,
		told: map[refusalKey]time.Time{},
	}
	go a.run()
	return a
}

// of returns who notes what is done to a share. It never waits.
func (a *auditor) of(share string) func(gate.Event) {
	return func(ev gate.Event) {
		select {
		case a.entries <- machine.AuditEntry{Event: ev, Share: share}:
		default:
			a.leftOut.Add(1)
		}
	}
}

// close writes what is left. It may be called on nil.
func (a *auditor) close() {
	if a == nil {
		return
	}
	close(a.stop)
	<-a.ended
}

func (a *auditor) run() {
	defer close(a.ended)
	defer a.log.Close()
	var due, rested <-chan time.Time // when what is new may be shown, and when entries are taken again
	entries := a.entries             // nil: none is taken
	for {
		select {
		case e := <-entries:
			a.write(e)
			if len(a.entries) == 0 {
				entries, rested = nil, time.After(auditRest)
			}
		case <-rested:
			entries, rested = a.entries, nil
		case <-due:
			due = nil
		case <-a.stop:
			select {
			case e := <-a.entries:
				a.write(e)
				continue
			default:
			}
			a.showNews()
			return
		}
		if a.news && due == nil {
			a.showNews()
			due = time.After(refusalInterval)
		}
	}
}

// write notes an entry, and those that wait behind it.
func (a *auditor) write(e machine.AuditEntry) {
	var lines bytes.Buffer
	out := json.NewEncoder(&lines)
	out.SetEscapeHTML(false)
	for ok, n := true, 1; ok; n++ {
		a.note(e)
		_ = out.Encode(e) // of strings and times
		if ok = n < auditBatch; ok {
			select {
			case e = <-a.entries:
			default:
				ok = false
			}
		}
	}
	if n := a.leftOut.Swap(0); n > 0 {
		_ = out.Encode(machine.AuditEntry{Event: gate.Event{Time: time.Now()}, LeftOut: n})
	}
	if _, err := a.log.Write(lines.Bytes()); err != nil {
		a.logger.Warn("what the guest does to its shares is not recorded any more", "err", err)
	}
}

// note remembers a refusal that is to be told.
func (a *auditor) note(e machine.AuditEntry) {
	if e.Refused == "" {
		return
	}
	now := time.Now()
	key := refusalKey{e.Share, e.Refused, e.Rule, e.Verb}
	if last, ok := a.told[key]; ok && now.Sub(last) < refusalRepeat {
		return
	}
	if len(a.told) >= maxRepeats {
		clear(a.told)
	}
	a.told[key] = now
	if n := len(a.refusals); n > 0 && !now.After(a.refusals[n-1].Time) {
		now = a.refusals[n-1].Time.Add(1)
	}
	r := machine.Refusal{Time: now, Share: e.Share, Verb: e.Verb, Path: e.Refused, Rule: e.Rule, Reason: e.Reason}
	a.refusals = append(a.refusals[max(0, len(a.refusals)+1-shownRefusals):], r)
	a.news = true
}

func (a *auditor) showNews() {
	if !a.news {
		return
	}
	a.news = false
	if err := a.show(slices.Clone(a.refusals)); err != nil {
		a.logger.Warn("the state does not show what the guest was refused", "err", err)
	}
}
