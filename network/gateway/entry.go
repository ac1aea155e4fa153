package gateway

import "time"

// Entry is a line of the log of the guest's network. Message is MessageConnection for what the guest did, or tried, and
// anything else for what its process has to say; then the other fields are empty.
type Entry struct {
	Time     time.Time     `json:"time"` // when it began
	Level    string        `json:"level,omitempty"`
	Message  string        `json:"msg"`
	Proto    string        `json:"proto,omitempty"` // tcp, udp, icmp, dns, or http for a request
	Name     string        `json:"name,omitempty"`  // as in zone files: what is not printable is \DDD (RFC 1035, section 5.1)
	Address  string        `json:"address,omitempty"`
	Port     uint16        `json:"port,omitempty"`
	Request  string        `json:"request,omitempty"` // of HTTP: its method, and its path without a query
	Sent     int64         `json:"sent,omitempty"`    // bytes, by the guest
	Received int64         `json:"received,omitempty"`
	Duration time.Duration `json:"duration,omitempty"` // nanoseconds
	Decision string        `json:"decision,omitempty"` // DecisionAllowed or DecisionRefused
	Rule     string        `json:"rule,omitempty"`     // that decided
	Count    int           `json:"count,omitempty"`    // how many there were, if it stands for more than one
	Err      string        `json:"err,omitempty"`
}

// Words of an Entry.
const (
	MessageConnection = "connection" // also for a lookup
	// MessageLeftOut is for what there was too much of to be written down: Count entries, of which no more is known.
	MessageLeftOut  = "left out"
	DecisionAllowed = "allowed"
	DecisionRefused = "refused"
)
