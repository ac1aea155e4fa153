package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/network/gateway"
	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/sourcery-zone/sandbox/network/stack"
)

func TestEntryIsOneLine(t *testing.T) {
	for _, c := range []struct {
		entry gateway.Entry
		want  []string
	}{
		{
			gateway.Entry{Time: time.Now(), Message: "connection", Proto: "tcp", Name: "api.example.com", Address: "198.18.0.1", Port: 443, Sent: 5, Received: 70000, Duration: 1500 * time.Millisecond, Decision: "allowed", Rule: "*.example.com"},
			[]string{"tcp", "allowed", "5", "70000", "1.5s", "api.example.com:443", "*.example.com"},
		},
		{
			gateway.Entry{Message: "connection", Proto: "tcp", Address: "10.0.0.1", Port: 22, Decision: "refused", Rule: "private", Count: 3},
			[]string{"tcp", "refused", "0", "0", "0s", "10.0.0.1:22", "private", "(3", "times)"},
		},
		{gateway.Entry{Message: "left out", Count: 12}, []string{"left", "out", "(12)"}},
		{
			gateway.Entry{Message: "connection", Proto: "dns\n", Name: "a\nb\x1b[2J\u202e", Rule: "r\r"},
			[]string{`dns\n`, "0", "0", "0s", `a\nb\x1b[2J\u202e`, `r\x0d`},
		},
		{gateway.Entry{Message: "panic:\n\x1b]0;", Err: "e\nf"}, []string{`panic:\n\x1b]0;:`, `e\nf`}},
	} {
		var out strings.Builder
		if err := printEntry(&out, c.entry); err != nil {
			t.Fatal(err)
		}
		got := strings.Fields(out.String())
		if !c.entry.Time.IsZero() {
			got = got[2:]
		}
		if strings.Count(out.String(), "\n") != 1 || strings.Join(got, " ") != strings.Join(c.want, " ") {
			t.Errorf("%+v is\n%q, want the words\n%q", c.entry, out.String(), c.want)
		}
	}
}

func TestRefusalsOfASessionHaveTheirRules(t *testing.T) {
	now := time.Now()
	r := refusals{since: now}
	for _, e := range []gateway.Entry{
		{Proto: "tcp", Name: "lan.example", Address: "198.18.0.1", Port: 443, Rule: policy.RulePrivate},
		{Proto: "tcp", Address: "10.0.2.2", Port: 5432, Rule: stack.RuleGateway},
		{Proto: "udp", Name: "a.example", Port: 443, Rule: policy.RuleNotAllowed},
		{Proto: "dns", Name: "short", Rule: policy.RuleNotAllowed},
		{Proto: "tcp", Name: `a\\032b`, Port: 443, Rule: policy.RuleNotAllowed},
	} {
		e.Time, e.Decision = now, gateway.DecisionRefused
		if err := r.add(e); err != nil {
			t.Fatal(err)
		}
		if got := r.opening(); got != "" {
			t.Errorf("%+v: %s", e, got)
		}
	}
	for _, e := range []gateway.Entry{
		{Proto: "tcp", Name: "a.example", Address: "198.18.0.1", Port: 443, Rule: policy.RuleNotAllowed},
		{Proto: "tcp", Name: "a.example", Address: "198.18.0.1", Port: 80, Rule: policy.RuleNotAllowed},
		{Proto: "tcp", Name: "b.example", Address: "198.18.0.2", Port: 22, Rule: stack.RuleNotAnswered},
		{Proto: "tcp", Address: "fd00::1", Port: 22, Rule: policy.RulePrivate},
		{Proto: "tcp", Name: "d.example", Port: 443, Rule: policy.RuleNotAllowed},
	} {
		e.Time, e.Decision = now, gateway.DecisionRefused
		if err := r.add(e); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := r.opening(), "another run opens it with --allow a.example --allow b.example:22 --allow '[fd00::1]:22'"; got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
}

func TestRefusalsOfASession(t *testing.T) {
	now := time.Now()
	r := refusals{since: now}
	add := func(e gateway.Entry) {
		if err := r.add(e); err != nil {
			t.Fatal(err)
		}
	}
	add(gateway.Entry{Time: now.Add(-time.Second), Proto: "tcp", Name: "before.example", Port: 443, Decision: "refused"})
	add(gateway.Entry{Time: now, Proto: "tcp", Name: "allowed.example", Port: 443, Decision: "allowed"})
	if got := r.String(); got != "" {
		t.Errorf("it says %q although nothing was refused", got)
	}
	for _, name := range []string{"a.example", "a.example", "b.example"} {
		add(gateway.Entry{Time: now, Proto: "dns", Name: name, Decision: "refused"})
		add(gateway.Entry{Time: now, Proto: "tcp", Name: name, Port: 443, Decision: "refused"})
	}
	add(gateway.Entry{Time: now, Proto: "dns", Name: "c.example", Decision: "refused"})
	if got := r.String(); got != "a.example:443, b.example:443, c.example" {
		t.Errorf("it says %q", got)
	}
	add(gateway.Entry{Time: now, Proto: "tcp", Address: "10.0.0.1", Port: 22, Decision: "refused"})
	if got := r.String(); got != "a.example:443, b.example:443, 10.0.0.1:22 and 1 more" {
		t.Errorf("it says %q", got)
	}
}

func TestFilesThatASessionWasKeptFrom(t *testing.T) {
	now := time.Now()
	got := refusedFiles([]machine.Refusal{
		{Time: now.Add(-time.Second), Share: "/src", Path: "before"},
		{Time: now, Share: "/src", Path: ".git/hooks/pre-commit", Verb: "create"},
		{Time: now, Share: "/src", Path: ".git/hooks/pre-commit", Verb: "chmod"},
		{Time: now, Share: "/src", Path: "\x1b[2J/.env", Verb: "read"},
	}, now)
	if want := []string{"/src/.git/hooks/pre-commit", `/src/\x1b[2J/.env`}; !slices.Equal(got, want) {
		t.Errorf("it was kept from %q, want %q", got, want)
	}
}
