package main

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/network/stack"
)

// newAsker returns one whose answers are noted.
func newAsker(asJSON bool) (a *asker, out *strings.Builder, answers *[]string) {
	out, answers = &strings.Builder{}, &[]string{}
	return &asker{sandbox: "work", out: out, json: asJSON, answer: func(_ context.Context, id, answer string) error {
		*answers = append(*answers, id+" "+answer)
		return nil
	}}, out, answers
}

func TestQuestionsAreShownAndAnswered(t *testing.T) {
	a, out, answers := newAsker(false)
	tell := func(kind machine.EventType, q machine.Question) {
		t.Helper()
		if err := a.event(machine.Event{Type: kind, Status: machine.StatusRunning, Question: &q}); err != nil {
			t.Fatal(err)
		}
	}
	a.line(t.Context(), "o")
	first := machine.Question{ID: "k3f9ab", Time: time.Now(), Host: "api.example", Port: 443, Rule: "api.example"}
	second := machine.Question{ID: "zzzzzz", Time: time.Now(), Host: "a\x1b[2J\n\u202eb", Port: 22, Reason: "please\x1b]"}
	tell(machine.EventQuestion, first)
	a.line(t.Context(), "s") // typed for another one, which has just ended
	seen := func() { a.turn = a.turn.Add(-hesitation) }
	seen()
	tell(machine.EventQuestion, second)
	for _, line := range []string{"", "maybe", "o", "zzzzzz n", "s", "k3f9ab sandbox extra"} {
		a.line(t.Context(), line)
	}
	first.Answer = stack.AnswerOnce
	tell(machine.EventAnswer, first)
	a.line(t.Context(), "s") // that was for the first
	seen()
	a.line(t.Context(), "never")
	if want := []string{"k3f9ab once", "zzzzzz never", "k3f9ab sandbox", "zzzzzz never"}; !slices.Equal(*answers, want) {
		t.Errorf("the answers are %q, want %q", *answers, want)
	}
	shown := strings.Split(out.String(), "\n")
	if len(shown) != 4 || !strings.HasSuffix(shown[0], "api.example:443? o(nce), s(andbox), p(roject), n(ever)") || !strings.Contains(shown[1], `a\x1b[2J\n\u202eb:22  (the guest says: please\x1b])?`) || !strings.HasSuffix(shown[2], "api.example:443: allowed once") {
		t.Errorf("it is shown %q", shown)
	}
	if err := a.event(machine.Event{Type: machine.EventStatus, Status: machine.StatusStopped}); !errors.Is(err, errEnded) {
		t.Errorf("at the sandbox's end: %v", err)
	}
}

func TestQuestionsForPrograms(t *testing.T) {
	a, out, answers := newAsker(true)
	want := machine.Question{ID: "k3f9ab", Host: "api.example", Port: 443, Rule: "api.example"}
	if err := a.event(machine.Event{Type: machine.EventQuestion, Status: machine.StatusRunning, Question: &want}); err != nil {
		t.Fatal(err)
	}
	var got machine.Question
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil || got != want || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("it is shown %q: %v", out, err)
	}
	a.line(t.Context(), "once") // of which question is not said
	a.line(t.Context(), "k3f9ab once")
	if want := []string{"k3f9ab once"}; !slices.Equal(*answers, want) {
		t.Errorf("the answers are %q, want %q", *answers, want)
	}
}

func TestUsesOfKeysAreShown(t *testing.T) {
	a, out, _ := newAsker(false)
	q := machine.Question{ID: "k3f9ab", Time: time.Now(), Key: "SHA256:abc", For: `a login as "x\x1b[2J"`}
	if err := a.event(machine.Event{Type: machine.EventQuestion, Status: machine.StatusRunning, Question: &q}); err != nil {
		t.Fatal(err)
	}
	if want := `the key SHA256:abc for a login as "x\x1b[2J"? o(nce), s(andbox), n(ever)` + "\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("it is shown %q", out)
	}
}
