package stack

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/sourcery-zone/sandbox/network/policy"
)

// Question is whether a guest may connect to what no rule opens or closes.
type Question struct {
	ID     string    `json:"id"` // by which it is answered; of no other question, also of another process
	Time   time.Time `json:"time"`
	Host   string    `json:"host"` // a name, or an address
	Port   uint16    `json:"port"`
	Rule   string    `json:"rule"`             // that would open it
	Reason string    `json:"reason,omitempty"` // that a program in the guest gives, if it does; see Reason
	Answer string    `json:"answer,omitempty"` // how it has ended; empty while it is open
}

// Answers to a Question.
const (
	AnswerOnce    = "once"    // the connections that wait are open, and no other
	AnswerSandbox = "sandbox" // a rule opens it from now on
	AnswerNever   = "never"   // a rule closes it from now on
	AnswerNone    = "none"    // nobody has said anything in time
)

const (
	// QuestionTime is how long a connection waits for an answer.
	QuestionTime = 30 * time.Second
	// MaxQuestions is how many may be open. Those beyond are refused.
	MaxQuestions = 16
)

// asked are the open questions.
type asked struct {
	tell func(Question) // about one that was asked or has ended; nil where nobody is asked

	mu      sync.Mutex
	open    map[string]*asking   // by their rules
	granted map[string]time.Time // until when a rule opens the next connection, which was asked for before it was made
}

// asking is an open question.
type asking struct {
	Question
	rule    policy.Rule
	waiting int // connections
	late    *time.Timer
	ended   chan struct{}
	verdict policy.Verdict // when it has ended
	once    bool           // the verdict is for those who wait now
}

// asks returns the rule that would open a host of an allowlist, if the user may be asked for it: no rule opens or closes
// it, and this one would. Only connections of TCP can wait.
func (r *rules) asks(name string, a netip.AddrPort, proto policy.Proto) *policy.Rule {
	if r.allow == nil || proto != policy.TCP || r.judge(name, a, proto).Rule != policy.RuleNotAllowed {
		return nil
	}
	rule, err := policy.ParseRule(policy.RuleFor(cmp.Or(name, a.Addr().Unmap().String()), a.Port()))
	if err != nil || !r.with(&rule).judge(name, a, proto).Allow {
		return nil
	}
	return &rule
}

// askUser asks the user for a connection, or waits with those who have asked already. If the answer is for the connections
// that wait now, once is the rule that opens them.
func (n *Network) askUser(name string, a netip.AddrPort, rule policy.Rule) (v policy.Verdict, once *policy.Rule) {
	q, v := n.asked.question(n.rules.Load, name, a, rule, "")
	if q == nil {
		if v.Rule == RuleOnce {
			once = &rule
		}
		return v, once
	}
	select {
	case <-q.ended:
	case <-n.ctx.Done():
		return policy.Verdict{Rule: RuleNotAnswered}, nil
	}
	if q.once {
		return q.verdict, &q.rule
	}
	return q.verdict, nil
}

// askBefore asks the user for a program that has not connected yet, and gives a reason.
func (n *Network) askBefore(ctx context.Context, name string, a netip.AddrPort, rule policy.Rule, reason string) policy.Verdict {
	q, v := n.asked.question(n.rules.Load, name, a, rule, reason)
	if q == nil {
		return v
	}
	select {
	case <-q.ended:
		return q.verdict
	case <-ctx.Done():
		return policy.Verdict{Rule: RuleNotAnswered}
	}
}

// question returns the open question of a rule, or why none has to be or can be asked. Without a reason it is for a connection.
func (o *asked) question(now func() *rules, name string, a netip.AddrPort, rule policy.Rule, reason string) (*asking, policy.Verdict) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if until, ok := o.granted[rule.String()]; ok && reason == "" {
		delete(o.granted, rule.String())
		if time.Now().Before(until) {
			return nil, policy.Verdict{Allow: true, Rule: RuleOnce}
		}
	}
	if q := o.open[rule.String()]; q != nil {
		if reason == "" {
			q.waiting++
		}
		return q, policy.Verdict{}
	}
	if v := now().judge(name, a, policy.TCP); v.Allow || v.Rule != policy.RuleNotAllowed {
		return nil, v // a rule has come meanwhile
	}
	if len(o.open) >= MaxQuestions {
		return nil, policy.Verdict{Rule: RuleLimit}
	}
	q := &asking{
		Question: Question{
			ID: strings.ToLower(rand.Text()[:6]), Time: time.Now(), Host: cmp.Or(name, a.Addr().String()), Port: a.Port(),
			Rule: rule.String(), Reason: reason,
		},
		rule: rule, ended: make(chan struct{}),
	}
	if reason == "" {
		q.waiting++
	}
	o.open[rule.String()] = q
	q.late = time.AfterFunc(QuestionTime, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.end(q, policy.Verdict{Rule: RuleNotAnswered}, AnswerNone)
	})
	o.tell(q.Question)
	return q, policy.Verdict{}
}

// maxReason is how long a reason may be, in bytes.
const maxReason = 300

// Reason returns a reason in the form in which it may be shown and kept: a line of printable text. One that is empty is not
// a reason.
func Reason(text string) string {
	text = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(text, ""), func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	if more := "…"; len(text) > maxReason {
		return strings.ToValidUTF8(text[:maxReason-len(more)], "") + more
	}
	return text
}

// end ends a question, unless it has ended. The caller holds the lock.
func (o *asked) end(q *asking, v policy.Verdict, answer string) {
	if o.open[q.Rule] != q {
		return
	}
	delete(o.open, q.Rule)
	q.late.Stop()
	q.verdict, q.once, q.Answer = v, answer == AnswerOnce, answer
	close(q.ended)
	o.tell(q.Question)
}

// judgeAgain ends the questions that rules answer.
func (o *asked) judgeAgain(r *rules) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, q := range o.open {
		addr, err := netip.ParseAddr(q.Host)
		name := ""
		if err != nil {
			name = q.Host
		}
		switch v := r.judge(name, netip.AddrPortFrom(addr, q.Port), policy.TCP); {
		case v.Allow:
			o.end(q, v, AnswerSandbox)
		case v.Rule != policy.RuleNotAllowed:
			o.end(q, v, AnswerNever)
		}
	}
}

// AllowOnce opens the connections that wait for the answer to a question, and no others. All other answers are rules.
func (n *Network) AllowOnce(id string) error {
	n.asked.mu.Lock()
	defer n.asked.mu.Unlock()
	for _, q := range n.asked.open {
		if q.ID == id {
			if q.waiting == 0 {
				n.asked.grant(q.Rule)
			}
			n.asked.end(q, policy.Verdict{Allow: true, Rule: RuleOnce}, AnswerOnce)
			return nil
		}
	}
	return errors.New("the question is no longer open")
}

// grantTime is how long a program has for the connection that it has asked for before.
const grantTime = time.Minute

// grant opens the next connection that a rule would open. The caller holds the lock.
func (o *asked) grant(rule string) {
	now := time.Now()
	maps.DeleteFunc(o.granted, func(_ string, until time.Time) bool { return now.After(until) })
	if len(o.granted) < MaxQuestions {
		o.granted[rule] = now.Add(grantTime)
	}
}
