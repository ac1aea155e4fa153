package main

import (
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/virtiofs/gate"
	"github.com/sourcery-zone/sandbox/virtiofs/rules"
)

// What no option allows must not be said to be allowed by one.
func TestRefusalSaysWhatAllowsIt(t *testing.T) {
	for rule, want := range map[string]string{
		"git-hooks":      "give the share the option allow=a/b",
		gate.RuleQuota:   "a larger quota=",
		rules.RuleSetID:  "no option allows it",
		rules.RuleDevice: "no option allows it",
	} {
		got := refusalReason(machine.Refusal{Verb: gate.Create, Share: "/home/agent/x", Path: "a/b", Rule: rule, Reason: "of a reason"})
		if !strings.Contains(got, want) || strings.Contains(got, "allow=") != (rule == "git-hooks") {
			t.Errorf("%s: %q, want %q", rule, got, want)
		}
	}
}
