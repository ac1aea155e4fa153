package machine

import (
	"net"
	"strconv"
	"time"

	"github.com/sourcery-zone/sandbox/network/stack"
)

// Question is whether a guest may do something now, for which it waits: connect to what no rule opens or closes (see
// stack.Question), or have a key of the user's ssh agent sign.
type Question struct {
	ID     string    `json:"id"` // by which it is answered; of no other question
	Time   time.Time `json:"time"`
	Host   string    `json:"host,omitempty"` // a name or an address; empty: it is about a key
	Port   uint16    `json:"port,omitempty"`
	Rule   string    `json:"rule,omitempty"`   // that would open it
	Reason string    `json:"reason,omitempty"` // that a program in the guest gives, if it does
	Key    string    `json:"key,omitempty"`    // fingerprint of the key that is to sign
	For    string    `json:"for,omitempty"`    // what for, in words of ours, in which names that the guest has chosen are quoted
	Answer string    `json:"answer,omitempty"` // how it has ended, as of stack.Question; empty while it is open
}

// NetworkQuestion is a question of the guest's network.
func NetworkQuestion(q stack.Question) Question {
	return Question{ID: q.ID, Time: q.Time, Host: q.Host, Port: q.Port, Rule: q.Rule, Reason: q.Reason, Answer: q.Answer}
}

// What is what the guest wants, in words that follow "wants to". They may have any characters in them.
func (q Question) What() string {
	if q.Key != "" {
		return "use the key " + q.Key + " for " + q.For
	}
	return "reach " + net.JoinHostPort(q.Host, strconv.Itoa(int(q.Port)))
}
