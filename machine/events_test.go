package machine

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/process"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/network/stack"
)

// watchEvents collects the events of h as short texts.
func watchEvents(t *testing.T, h *Host, names ...string) (next func() string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	events := make(chan string, 100)
	done := make(chan error, 1)
	go func() {
		done <- h.Events(ctx, names, func(e Event) error {
			text := fmt.Sprintf("%s %s", e.Sandbox, e.Type)
			for _, more := range []string{string(e.Status), e.Stage, e.From, e.Share} {
				if more != "" {
					text += " " + more
				}
			}
			if e.Port != nil {
				text += fmt.Sprintf(" %d", e.Port.Number)
			}
			if e.Question != nil {
				text += fmt.Sprintf(" %s %s", e.Question.ID, e.Question.Answer)
			}
			events <- text
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the watch: %v", err)
		}
	})
	return func() string {
		select {
		case e := <-events:
			return e
		case <-time.After(time.Minute):
			t.Helper()
			t.Fatal("no more events came")
			return ""
		}
	}
}

func wantEvents(t *testing.T, next func() string, want ...string) {
	t.Helper()
	for _, w := range want {
		if got := next(); got != w {
			t.Fatalf("event %q, want %q", got, w)
		}
	}
}

func TestEventsTellALife(t *testing.T) {
	h := testHost(t)
	create(t, h, "before")
	next := watchEvents(t, h)
	wantEvents(t, next, "before exists created")

	s := create(t, h, "a")
	wantEvents(t, next, "a created created")
	start := time.Now()
	lock, err := s.Files().Lock()
	if err != nil {
		t.Fatal(err)
	}
	supervisor := startProgram(t, sleeper)
	id, err := process.Identify(supervisor.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	write := func(st State) {
		t.Helper()
		st.Started, st.Identity = start, &id
		if err := durable.WriteJSON(s.Files().Path(layout.StateFile), st); err != nil {
			t.Fatal(err)
		}
	}
	write(State{Status: StatusStarting})
	wantEvents(t, next, "a status starting")
	// Two stages in one go, as when notifications were merged.
	running := State{Status: StatusRunning, Timings: []Timing{{Stage: StageShares}, {Stage: StageAgent}}, Shares: []ServedShare{{Source: "/src"}}}
	write(running)
	wantEvents(t, next, "a stage starting shares", "a stage starting agent", "a status running")
	for _, changed := range []string{"is not there any more", ""} {
		running.Shares = []ServedShare{{Source: "/src", Changed: changed}}
		write(running)
		wantEvents(t, next, "a share running /src")
	}
	// Refusals are told once, and not to who begins to watch later.
	refusal := func(n int) Refusal {
		return Refusal{Time: start.Add(time.Duration(n)), Share: fmt.Sprintf("/src%d", n)}
	}
	running.Refusals = []Refusal{refusal(1), refusal(2)}
	write(running)
	wantEvents(t, next, "a refused running /src1", "a refused running /src2")
	running.Refusals = []Refusal{refusal(2), refusal(3)}
	write(running)
	wantEvents(t, next, "a refused running /src3")
	// A watch that begins later is told of the ports as well.
	running.Ports = []GuestPort{{Port: agent.Port{Number: 3000}}, {Port: agent.Port{Number: 80}}}
	write(running)
	wantEvents(t, next, "a port-opened running 3000", "a port-opened running 80")
	wantEvents(t, watchEvents(t, h, "a"), "a exists running", "a port-opened running 3000", "a port-opened running 80")
	running.Ports = running.Ports[1:]
	write(running)
	wantEvents(t, next, "a port-closed running 3000")
	// The supervisor is killed and writes nothing any more.
	_ = supervisor.Process.Kill()
	_ = supervisor.Wait()
	lock.Close()
	wantEvents(t, next, "a status crashed")

	renamed, err := s.Rename("b")
	if err != nil {
		t.Fatal(err)
	}
	wantEvents(t, next, "b renamed crashed a")
	s, start = renamed, start.Add(time.Second)
	if id, err = process.Identify(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	if lock, err = s.Files().Lock(); err != nil {
		t.Fatal(err)
	}
	write(State{Status: StatusStarting})
	wantEvents(t, next, "b status starting")
	write(State{Status: StatusStopped})
	wantEvents(t, next, "b status stopped")
	lock.Close()
	if err := s.Remove(context.Background(), false); err != nil {
		t.Fatal(err)
	}
	wantEvents(t, next, "b removed")
	create(t, h, "b")
	wantEvents(t, next, "b created created")
}

func TestEventsOfTheNamedOnly(t *testing.T) {
	h := testHost(t)
	create(t, h, "other")
	next := watchEvents(t, h, "mine", "other", "gone")
	wantEvents(t, next, "other exists created")
	mine := create(t, h, "mine")
	wantEvents(t, next, "mine created created")
	create(t, h, "another")
	if err := mine.Remove(context.Background(), false); err != nil {
		t.Fatal(err)
	}
	wantEvents(t, next, "mine removed")
}

func TestEventsOfManyThatComeAndGo(t *testing.T) {
	h := testHost(t)
	next := watchEvents(t, h)
	for i := range 30 {
		s := create(t, h, fmt.Sprintf("s%d", i))
		if err := s.Remove(context.Background(), false); err != nil {
			t.Fatal(err)
		}
	}
	create(t, h, "last")
	for next() != "last created created" {
	}
}

func TestEventsTellQuestionsAndAnswers(t *testing.T) {
	h := testHost(t)
	s := create(t, h, "a")
	write := func(questions ...Question) {
		t.Helper()
		if err := durable.WriteJSON(s.Files().Path(layout.StateFile), State{Status: StatusStopped, Questions: questions}); err != nil {
			t.Fatal(err)
		}
	}
	write(Question{ID: "old", Answer: stack.AnswerNone}, Question{ID: "open"})
	next := watchEvents(t, h)
	wantEvents(t, next, "a exists stopped", "a question stopped open ")
	write(Question{ID: "open", Answer: stack.AnswerOnce}, Question{ID: "more"})
	wantEvents(t, next, "a answer stopped open once", "a question stopped more ")
	write(Question{ID: "more"}, Question{ID: "short", Answer: stack.AnswerNever})
	wantEvents(t, next, "a question stopped short ", "a answer stopped short never")
}
