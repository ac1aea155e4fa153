package server

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/sourcery-zone/sandbox/network/gateway"
	"github.com/sourcery-zone/sandbox/network/stack"
)

const (
	// logWindow is for how long refusals that are the same are counted rather than written.
	logWindow = 10 * time.Second
	// mostEntries bounds how many different ones of a kind are written in a window. A guest that goes beyond has half as many
	// in the next, down to leastEntries, so that a flood does not push out of the log what was before it.
	mostEntries  = 256
	leastEntries = 8
)

// eventLog writes down what a guest does.
type eventLog struct {
	log *slog.Logger

	mu sync.Mutex
	// Connections that were made have a budget of their own: those that matter most would hide behind a flood of what costs
	// a guest nothing, such as refusals and names.
	made, others budget
	refused      map[refusal]*repeated // in this window
	open         bool                  // there is a window
}

// budget bounds what is written of one kind of events.
type budget struct {
	most    int // of this window
	written int
	leftOut int
}

// take tells whether one more may be written.
func (b *budget) take() bool {
	if b.written >= b.most {
		b.leftOut++
		return false
	}
	b.written++
	return true
}

// next begins another window, and returns how many were left out in the last one.
func (b *budget) next() (leftOut int) {
	leftOut = b.leftOut
	if leftOut == 0 {
		b.most = mostEntries
	} else {
		b.most = max(b.most/2, leastEntries)
	}
	b.written, b.leftOut = 0, 0
	return leftOut
}

// refusal is what is the same of refusals that count as one.
type refusal struct{ proto, name, address, request, rule string }

// repeated is one that came again.
type repeated struct {
	last  stack.Event
	count int // besides the one that was written
}

func newEventLog(log *slog.Logger) *eventLog {
	return &eventLog{log: log, made: budget{most: mostEntries}, others: budget{most: mostEntries}, refused: map[refusal]*repeated{}}
}

// note writes an event, or counts it.
func (l *eventLog) note(e stack.Event) {
	key := refusal{e.Proto, e.Name, e.Addr.String(), e.Request, e.Rule}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.open {
		l.open = true
		time.AfterFunc(logWindow, l.endWindow)
	}
	if r := l.refused[key]; r != nil && !e.Allowed {
		r.last, r.count = e, r.count+1
		return
	}
	of := &l.others
	if e.Allowed && e.Proto != stack.ProtoDNS {
		of = &l.made
	}
	if !of.take() {
		return
	}
	if !e.Allowed {
		l.refused[key] = &repeated{}
	}
	l.write(e, 1)
}

// endWindow writes what was counted.
func (l *eventLog) endWindow() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.refused {
		if r.count > 0 {
			l.write(r.last, r.count)
		}
	}
	if leftOut := l.made.next() + l.others.next(); leftOut > 0 {
		l.log.Warn(gateway.MessageLeftOut, "count", leftOut)
	}
	l.open = false
	clear(l.refused)
}

func (l *eventLog) write(e stack.Event, count int) {
	decision := gateway.DecisionRefused
	if e.Allowed {
		decision = gateway.DecisionAllowed
	}
	attrs := []slog.Attr{slog.String("proto", e.Proto)}
	if e.Name != "" {
		attrs = append(attrs, slog.String("name", printable(e.Name)))
	}
	if e.Addr.IsValid() {
		attrs = append(attrs, slog.String("address", e.Addr.Addr().String()))
	}
	if port := e.Addr.Port(); port != 0 {
		attrs = append(attrs, slog.Int("port", int(port)))
	}
	if e.Request != "" {
		attrs = append(attrs, slog.String("request", e.Request))
	}
	if e.Sent != 0 || e.Received != 0 {
		attrs = append(attrs, slog.Int64("sent", e.Sent), slog.Int64("received", e.Received))
	}
	attrs = append(attrs, slog.Duration("duration", e.Duration), slog.String("decision", decision), slog.String("rule", e.Rule))
	if count > 1 {
		attrs = append(attrs, slog.Int("count", count))
	}
	r := slog.NewRecord(e.Time, slog.LevelInfo, gateway.MessageConnection, 0)
	r.AddAttrs(attrs...)
	_ = l.log.Handler().Handle(context.Background(), r) // there is nobody else to tell
}

// printable is a name in the notation of zone files. A guest may ask for any bytes.
func printable(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		if c <= ' ' || c > '~' || c == '\\' {
			fmt.Fprintf(&b, `\%03d`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
