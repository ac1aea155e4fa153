package supervisor

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/network/stack"
)

func TestQuestionsOfAHostileProcessAreBounded(t *testing.T) {
	v := create(t)
	question := stack.Question{ID: "k3f9ab", Host: "api.example", Port: 443, Rule: "api.example"}
	for what, change := range map[string]func(*stack.Question){
		"an ID with spaces":         func(q *stack.Question) { q.ID = "a b" },
		"an ID for a terminal":      func(q *stack.Question) { q.ID = "\x1b[2J" },
		"no ID":                     func(q *stack.Question) { q.ID = "" },
		"an unknown answer":         func(q *stack.Question) { q.Answer = "always" },
		"a rule for something else": func(q *stack.Question) { q.Rule = "other.example" },
		"a rule for all ports":      func(q *stack.Question) { q.Rule = "api.example:*" },
		"a domain":                  func(q *stack.Question) { q.Host, q.Rule = "*.example", "*.example" },
		"a preset":                  func(q *stack.Question) { q.Host, q.Rule = "preset:github", "preset:github" },
		"a network":                 func(q *stack.Question) { q.Host, q.Rule = "0.0.0.0/0", "0.0.0.0/0" },
		"a reason for a terminal":   func(q *stack.Question) { q.Reason = "so\x1b[2J" },
		"a long reason":             func(q *stack.Question) { q.Reason = strings.Repeat("x", 1000) },
		"a name for a terminal":     func(q *stack.Question) { q.Host, q.Rule = "a\x1b.example", "a\x1b.example" },
		"no address":                func(q *stack.Question) { q.Host, q.Rule = "fe80::1%eth0", "[fe80::1%eth0]" },
		"a network of IPv6":         func(q *stack.Question) { q.Host, q.Rule = "::/0", "[::/0]" },
		"a preset for an address":   func(q *stack.Question) { q.Host, q.Rule = "preset:github", "[preset:github]" },
		"this machine by IPv6":      func(q *stack.Question) { q.Host, q.Rule = "::1", "[::1]" },
		"this machine":              func(q *stack.Question) { q.Host, q.Rule = "127.0.0.1", "127.0.0.1" },
	} {
		q := question
		change(&q)
		if v.noteQuestion(q); len(v.currentState().Questions) > 0 {
			t.Errorf("it asks with %s", what)
		}
	}
	address := question
	address.Host, address.Rule = "2606:4700::1", "[2606:4700::1]"
	if err := checkQuestion(address); err != nil {
		t.Errorf("nobody may ask for an address of IPv6: %v", err)
	}
	for i := range 10_000 {
		q := question
		q.ID = fmt.Sprintf("q%d", i%100)
		if i%3 == 0 {
			q.Answer = stack.AnswerNone
		}
		v.state.Questions = withQuestion(v.state.Questions, machine.NetworkQuestion(q))
	}
	open := 0
	for _, q := range v.state.Questions {
		if q.Answer == "" {
			open++
		}
	}
	if all := len(v.state.Questions); open > stack.MaxQuestions || all > stack.MaxQuestions+endedQuestions {
		t.Errorf("there are %d questions, %d of them open", all, open)
	}
}

func TestQuestionWhoseEndWasLostEnds(t *testing.T) {
	now := time.Now()
	all := withQuestion(nil, machine.Question{ID: "a", Time: now})
	all = withQuestion(all, machine.Question{ID: "b", Time: now.Add(time.Hour)})
	all = withQuestion(all, machine.Question{ID: "key", Key: "SHA256:x", Time: now.Add(time.Hour)})
	all = withQuestion(all, machine.NetworkQuestion(stack.Question{ID: "key", Time: now.Add(time.Hour), Answer: stack.AnswerOnce}))
	if len(all) != 3 || all[2].Answer != "" || all[0].Answer != stack.AnswerNone || all[1].Answer != "" {
		t.Errorf("there are %+v", all)
	}
}

func TestOnlyOpenQuestionsAreAnswered(t *testing.T) {
	v := create(t)
	v.state.Questions = []machine.Question{{ID: "a", Answer: stack.AnswerNone}}
	for _, id := range []string{"a", "b", ""} {
		if err := v.answerQuestion(t.Context(), api.QuestionAnswer{ID: id, Answer: stack.AnswerOnce}); err == nil || !strings.Contains(err.Error(), "is open") {
			t.Errorf("%q: %v", id, err)
		}
	}
}
