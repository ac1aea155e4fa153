package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/sourcery-zone/sandbox/network/stack"
)

// changeRules changes what the guest reaches from now on.
func (v *supervisor) changeRules(ctx context.Context, change api.RuleChange) error {
	if !v.transition.TryLock() {
		return errTransition
	}
	defer v.transition.Unlock()
	if st := v.currentState(); st.Status != machine.StatusRunning && st.Status != machine.StatusPaused {
		return v.s.NotRunning(st)
	}
	c, err := v.config.ChangeRules(change)
	if err != nil {
		return err
	}
	if v.gateway == nil {
		return nil // without rules before and after
	}
	requests, err := hasRequests(c)
	if err != nil {
		return err
	}
	if requests {
		if err := v.beginReading(ctx); err != nil {
			return err
		}
	}
	if err := v.gateway.SetRules(c.Rules()); err != nil {
		return err
	}
	if err := v.record(func(current *machine.Config) { current.Allowed, current.Denied = c.Allowed, c.Denied }); err != nil {
		return errors.Join(err, v.gateway.SetRules(v.config.Rules()))
	}
	return nil
}

// answerQuestion answers an open question.
func (v *supervisor) answerQuestion(ctx context.Context, a api.QuestionAnswer) error {
	questions := v.currentState().Questions
	i := slices.IndexFunc(questions, func(q machine.Question) bool { return q.ID == a.ID && q.Answer == "" })
	if i >= 0 && questions[i].Key != "" {
		return v.keys.answer(a)
	}
	if i < 0 || v.gateway == nil {
		return api.Errorf(api.CodeInvalid, "no question with the ID %q is open", a.ID)
	}
	switch a.Answer {
	case stack.AnswerOnce:
		return v.gateway.AllowOnce(a.ID)
	case stack.AnswerSandbox:
		return v.changeRules(ctx, api.RuleChange{Allow: []string{questions[i].Rule}})
	case stack.AnswerNever:
		return v.changeRules(ctx, api.RuleChange{Deny: []string{questions[i].Rule}})
	}
	return api.Errorf(api.CodeInvalid, "%q is no answer: it is %s, %s or %s", a.Answer, stack.AnswerOnce, stack.AnswerSandbox, stack.AnswerNever)
}

const (
	// endedQuestions is how many are remembered after their end.
	endedQuestions = 16
	// questionPatience is how long the network's process may take to tell of a question's end.
	questionPatience = 5 * time.Second
)

// noteQuestion shows a question, or its end, in the state. Who has taken over the
// network's process can ask whatever he likes, but not for something else than what the
// answer opens.
func (v *supervisor) noteQuestion(q stack.Question) {
	if err := checkQuestion(q); err != nil {
		v.log.Warn("the guest's network asks what makes no sense", "err", err)
		return
	}
	v.showQuestion(machine.NetworkQuestion(q))
}

// showQuestion shows a question, or its end, to whoever may answer it.
func (v *supervisor) showQuestion(q machine.Question) {
	q.Time = time.Now()
	err := v.setState(func(st *machine.State) { st.Questions = withQuestion(st.Questions, q) })
	if err != nil {
		v.log.Warn("the state does not show a question", "err", err)
	}
	if q.Answer != "" {
		return
	}
	select {
	case v.asked <- struct{}{}:
	default: // it is known already that there are some
	}
}

// withQuestion adds a question, or its end, to those that are there.
func withQuestion(before []machine.Question, q machine.Question) []machine.Question {
	all := slices.Clone(before)
	open := 0
	for i, other := range all {
		switch {
		case other.Answer != "":
		case other.ID == q.ID && other.Key == q.Key: // the network's process tells of its own questions only
			all[i].Answer = q.Answer
		case q.Time.Sub(other.Time) > stack.QuestionTime+questionPatience: // its end was lost
			all[i].Answer = stack.AnswerNone
		default:
			open++
		}
	}
	known := slices.ContainsFunc(all, func(other machine.Question) bool { return other.ID == q.ID })
	if !known && q.Answer == "" && open < stack.MaxQuestions {
		all = append(all, q)
	}
	ended := 0
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Answer == "" {
			continue
		}
		if ended++; ended > endedQuestions {
			all = slices.Delete(all, i, i+1)
		}
	}
	return all
}

var questionID = regexp.MustCompile(`^[a-z0-9]{1,16}$`)

// checkQuestion finds out whether a question is one, and its rule opens what it asks for.
func checkQuestion(q stack.Question) error {
	if !questionID.MatchString(q.ID) {
		return fmt.Errorf("%q is no ID", q.ID)
	}
	switch q.Answer {
	case "", stack.AnswerOnce, stack.AnswerSandbox, stack.AnswerNever, stack.AnswerNone:
	default:
		return fmt.Errorf("%q is no answer", q.Answer)
	}
	addr, err := netip.ParseAddr(q.Host)
	address := err == nil && addr.Zone() == ""
	if !address && strings.ContainsAny(q.Host, "*:/[") { // which a rule may have, and no host
		return fmt.Errorf("%q is no host", q.Host)
	}
	if q.Reason != stack.Reason(q.Reason) {
		return fmt.Errorf("%q is no reason that could be shown", q.Reason)
	}
	if want := policy.RuleFor(q.Host, q.Port); q.Rule != want {
		return fmt.Errorf("the rule for %q is %q and not %q", q.Host, want, q.Rule)
	}
	_, err = policy.ParseRule(q.Rule)
	return err
}
