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
	// mostEntries bounds how many different ones are written in a window. A guest that goes beyond has half as many in the
	// next, down to leastEntries, so that a flood does not push out of the log what was before it.
	mostEntries  = 256
	leastEntries = 8
)

// eventLog writes down what a guest does.
type eventLog struct {
	log *slog.Logger

	mu      sync.Mutex
	most    int // of this window
	written int
	leftOut int
	refused map[refusal]*repeated // in this window
	open    bool                  // there is a window
}

// refusal is what is the same of refusals that count as one.
type refusal struct{ proto, name, address, request, rule string }

// repeated is one that came again.
type repeated struct {
	last  stack.Event
	count int // besides the one that was written
}

func newEventLog(log *slog.Logger) *eventLog {
	return &eventLog{log: log, most: mostEntries, refused: map[refusal]*repeated{}}
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
	if l.written >= l.most {
		l.leftOut++
		return
	}
	l.written++
	if !e.Allowed {
		l.refused[key] = &repeated{}
	}
	l.write(e, 1)
}

// endWindow writes what was counted.
func (l *eventLog) endWindow() {
	l.mu.Lock()
	defer l.mu.Unlock()
	calm := l.leftOut == 0
	for _, r := range l.refused {
		if r.count > 0 {
			l.write(r.last, r.count)
		}
	}
	if l.leftOut > 0 {
		l.log.Warn(gateway.MessageLeftOut, "count", l.leftOut)
	}
	l.written, l.leftOut, l.open = 0, 0, false
	clear(l.refused)
	if calm {
		l.most = mostEntries
	} else {
		l.most = max(l.most/2, leastEntries)
	}
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
