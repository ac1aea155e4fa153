package supervisor

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/network/stack"
)

// shownQuestions are those that the user sees, in order.
type shownQuestions struct {
	mu  sync.Mutex
	all []machine.Question
}

func (s *shownQuestions) show(q machine.Question) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, q)
}

func (s *shownQuestions) last() machine.Question {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[len(s.all)-1]
}

func TestEachUseOfAKeyIsAskedForUntilItIsDecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k keyQuestions
		var shown shownQuestions
		ask := func(key string) chan error {
			done := make(chan error, 1)
			go func() { done <- k.ask(t.Context(), machine.Question{Key: key, For: "a login"}, shown.show) }()
			synctest.Wait()
			return done
		}
		answer := func(what string) {
			t.Helper()
			if err := k.answer(api.QuestionAnswer{ID: shown.last().ID, Answer: what}); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		expect := func(what string, done chan error, want error) {
			t.Helper()
			if err := <-done; !errors.Is(err, want) {
				t.Errorf("%s: %v", what, err)
			}
		}

		asked := ask("A")
		if q := shown.last(); q.Key != "A" || q.For != "a login" || q.Answer != "" || !questionID.MatchString(q.ID) {
			t.Errorf("shown is %+v", q)
		}
		if err := k.answer(api.QuestionAnswer{ID: shown.last().ID, Answer: "project"}); err == nil {
			t.Error("it takes any answer")
		}
		answer(stack.AnswerOnce)
		expect("once", asked, nil)

		asked = ask("A") // the next use is another question
		time.Sleep(stack.QuestionTime)
		expect("nobody is there", asked, errKeyNobody)
		if shown.last().Answer != stack.AnswerNone {
			t.Errorf("shown is %+v", shown.last())
		}
		if err := k.answer(api.QuestionAnswer{ID: shown.last().ID, Answer: stack.AnswerOnce}); err == nil {
			t.Error("a question that has ended is answered")
		}

		first, other, second := ask("A"), ask("B"), ask("A")
		answer(stack.AnswerSandbox)
		expect("all that wait", first, nil)
		expect("all that wait", second, nil)
		expect("decided", ask("A"), nil)
		time.Sleep(stack.QuestionTime)
		expect("another key", other, errKeyNobody)

		asked = ask("B")
		answer(stack.AnswerNever)
		expect("never", asked, errKeyDenied)
		expect("decided", ask("B"), errKeyDenied)

		for range stack.MaxQuestions {
			ask("C")
		}
		expect("too often", ask("C"), errKeyTooOften)
		time.Sleep(stack.QuestionTime)
		synctest.Wait()
		if len(k.open) != 0 {
			t.Errorf("%d are open still", len(k.open))
		}
	})
}
