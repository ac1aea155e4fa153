package supervisor

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/network/stack"
)

// keyQuestions are those about keys of the user's ssh agent. What was answered for the sandbox counts until it ends.
type keyQuestions struct {
	mu      sync.Mutex
	open    map[string]keyQuestion // by their IDs
	decided map[string]string      // answers, by the fingerprints of the keys
}

type keyQuestion struct {
	key    string
	answer chan string // takes one
}

var (
	errKeyDenied   = errors.New("the user has denied it")
	errKeyNobody   = errors.New("nobody has answered whether the key may be used")
	errKeyTooOften = errors.New("too many questions are open already")
)

// ask returns without an error if the key may be used. It shows the question, and its end.
func (k *keyQuestions) ask(ctx context.Context, q machine.Question, show func(machine.Question)) error {
	q.ID = strings.ToLower(rand.Text()[:6])
	asked := keyQuestion{q.Key, make(chan string, 1)}
	k.mu.Lock()
	decided, open := k.decided[q.Key], len(k.open)
	if decided == "" && open < stack.MaxQuestions {
		if k.open == nil {
			k.open = map[string]keyQuestion{}
		}
		k.open[q.ID] = asked
	}
	k.mu.Unlock()
	switch {
	case decided == stack.AnswerSandbox:
		return nil
	case decided == stack.AnswerNever:
		return errKeyDenied
	case open >= stack.MaxQuestions:
		return errKeyTooOften
	}
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.open, q.ID)
	}()
	show(q)
	late := time.NewTimer(stack.QuestionTime)
	defer late.Stop()
	err := errKeyNobody
	q.Answer = stack.AnswerNone
	select {
	case q.Answer = <-asked.answer:
		if err = nil; q.Answer == stack.AnswerNever {
			err = errKeyDenied
		}
	case <-late.C:
	case <-ctx.Done():
	}
	show(q)
	return err
}

// answer answers a question that is open, and with it all that wait for the same key, unless it is for once.
func (k *keyQuestions) answer(a api.QuestionAnswer) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	asked, ok := k.open[a.ID]
	if !ok {
		return api.Errorf(api.CodeInvalid, "no question with the ID %q is open", a.ID)
	}
	switch a.Answer {
	case stack.AnswerOnce:
		k.end(a.ID, a.Answer)
		return nil
	case stack.AnswerSandbox, stack.AnswerNever:
	default:
		return api.Errorf(api.CodeInvalid, "%q is no answer: it is %s, %s or %s", a.Answer, stack.AnswerOnce, stack.AnswerSandbox, stack.AnswerNever)
	}
	if k.decided == nil {
		k.decided = map[string]string{}
	}
	k.decided[asked.key] = a.Answer
	for id, other := range k.open {
		if other.key == asked.key {
			k.end(id, a.Answer)
		}
	}
	return nil
}

// end tells whoever waits. The caller holds the lock.
func (k *keyQuestions) end(id, answer string) {
	k.open[id].answer <- answer
	delete(k.open, id)
}
