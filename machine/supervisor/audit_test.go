package supervisor

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/virtiofs/gate"
)

// slowLog is a log whose disk does nothing until it is told to.
type slowLog struct {
	bytes.Buffer
	begun, goOn chan struct{}
}

func (l *slowLog) Write(p []byte) (int, error) {
	select {
	case l.begun <- struct{}{}:
	default:
	}
	<-l.goOn
	return l.Buffer.Write(p)
}

func (l *slowLog) Close() error { return nil }

// refusal is an event of a path.
func refusal(path string) gate.Event {
	return gate.Event{Verb: gate.Write, Path: path, Refused: path, Rule: "r", Reason: "it is so"}
}

func TestAuditNeverWaitsForTheDisk(t *testing.T) {
	log := &slowLog{begun: make(chan struct{}, 1), goOn: make(chan struct{})}
	a := newAuditor(log, slog.New(slog.DiscardHandler), func([]machine.Refusal) error { return nil })
	note := a.of("/src")
	note(gate.Event{Verb: gate.Create, Path: "first"})
	<-log.begun
	const more = 100
	for i := range auditBacklog + more {
		note(gate.Event{Verb: gate.Create, Path: fmt.Sprint(i)})
	}
	close(log.goOn)
	a.close()
	if got, want := strings.Count(log.String(), `"create"`), auditBacklog+1; got != want {
		t.Errorf("%d entries, want %d", got, want)
	}
	if want := fmt.Sprintf(`"leftOut":%d}`, more); !strings.Contains(log.String(), want) {
		t.Errorf("%s is missing", want)
	}
}

func TestRefusalIsToldOnce(t *testing.T) {
	log := &slowLog{goOn: make(chan struct{})}
	close(log.goOn)
	var shown []machine.Refusal
	a := newAuditor(log, slog.New(slog.DiscardHandler), func(r []machine.Refusal) error { shown = r; return nil })
	note := a.of("/src")
	for range 10 {
		note(refusal("a"))
		note(refusal("b"))
		note(gate.Event{Verb: gate.Create, Path: "c"})
	}
	a.close()
	if len(shown) != 2 || shown[0].Path != "a" || shown[1].Path != "b" || !shown[1].Time.After(shown[0].Time) {
		t.Errorf("it shows %+v", shown)
	}
	if got := strings.Count(log.String(), `"refused"`); got != 20 {
		t.Errorf("%d refusals are recorded, want all 20", got)
	}
	(*auditor)(nil).close()
}

// countedLog counts how often it is written to.
type countedLog struct {
	bytes.Buffer
	writes int
}

func (l *countedLog) Write(p []byte) (int, error) {
	l.writes++
	return l.Buffer.Write(p)
}

func (l *countedLog) Close() error { return nil }

func TestAuditWritesWhatABusyGuestDoesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &countedLog{}
		a := newAuditor(log, slog.New(slog.DiscardHandler), func([]machine.Refusal) error { return nil })
		for i := range 10 {
			a.of("/src")(gate.Event{Verb: gate.Create, Path: fmt.Sprint(i)})
			time.Sleep(auditRest / 20)
		}
		time.Sleep(auditRest)
		a.close()
		if got := strings.Count(log.String(), "\n"); got != 10 || log.writes != 2 {
			t.Errorf("%d entries in %d writes, want 10 in 2", got, log.writes)
		}
	})
}

func TestShownRefusalsAreBounded(t *testing.T) {
	log := &slowLog{goOn: make(chan struct{})}
	close(log.goOn)
	var shown []machine.Refusal
	a := newAuditor(log, slog.New(slog.DiscardHandler), func(r []machine.Refusal) error { shown = r; return nil })
	for i := range 3 * shownRefusals {
		a.of("/src")(refusal(fmt.Sprint(i)))
	}
	a.close()
	if len(shown) != shownRefusals || shown[shownRefusals-1].Path != fmt.Sprint(3*shownRefusals-1) {
		t.Errorf("it shows %d, the last %+v", len(shown), shown[len(shown)-1])
	}
}
