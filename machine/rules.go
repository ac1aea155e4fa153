package machine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/gateway"
	"github.com/sourcery-zone/sandbox/network/policy"
)

// ChangeRules changes what the guest reaches: at once if the sandbox runs, and at each
// later start. Connections that are closed then end.
func (s *Sandbox) ChangeRules(ctx context.Context, change api.RuleChange) error {
	return s.changeConfig(
		func(c Config) (Config, error) { return c.ChangeRules(change) },
		func() error { return s.api().ChangeRules(ctx, change) },
	)
}

// AnswerQuestion answers a question of the network of a sandbox that runs (see
// State.Questions): stack.AnswerOnce, AnswerSandbox or AnswerNever.
func (s *Sandbox) AnswerQuestion(ctx context.Context, id, answer string) error {
	if st := s.State(); !st.Live() {
		return s.NotRunning(st)
	}
	return s.api().AnswerQuestion(ctx, api.QuestionAnswer{ID: id, Answer: answer})
}

// Rules are those that open and those that close, which count more.
func (a Access) Rules() (allow, deny []string) {
	allow = slices.Concat(a.Allow, a.Allowed)
	for _, preset := range slices.Sorted(maps.Keys(a.Registries)) {
		allow = append(allow, a.Registries[preset]...)
	}
	return allow, slices.Concat(a.StillDenied(), a.Denied)
}

// StillDenied are the rules that close with which the sandbox was made, without those
// that were allowed since.
func (a Access) StillDenied() []string {
	return slices.DeleteFunc(slices.Clone(a.Deny), func(rule string) bool { return slices.Contains(a.Allowed, rule) })
}

// UnreadRegistries returns the presets among the rules whose own rules are in the guest
// and were not read yet.
func (a Access) UnreadRegistries() (presets []string) {
	for _, text := range slices.Concat(a.Allow, a.Allowed) {
		rule, err := policy.ParseRule(text)
		if err != nil || rule.Reads() == "" {
			continue
		}
		if _, ok := a.Registries[rule.Reads()]; !ok {
			presets = append(presets, rule.Reads())
		}
	}
	return presets
}

// ChangeRules is the configuration with other rules, if it can have them. A rule that is
// allowed is denied no longer, and the other way round.
func (c Config) ChangeRules(change api.RuleChange) (Config, error) {
	c.Allowed, c.Denied = slices.Clone(c.Allowed), slices.Clone(c.Denied)
	if change.Reset {
		c.Allowed, c.Denied = nil, nil
	}
	is := func(rule string) func(string) bool { return func(r string) bool { return r == rule } }
	for _, rule := range change.Deny {
		c.Allowed = slices.DeleteFunc(c.Allowed, is(rule))
		if !slices.Contains(c.Deny, rule) && !slices.Contains(c.Denied, rule) {
			c.Denied = append(c.Denied, rule)
		}
	}
	for _, text := range change.Allow {
		// Once a guest has run, its settings are whatever it wants.
		if rule, err := policy.ParseRule(text); err == nil && rule.Reads() != "" && !slices.Contains(c.Allow, text) {
			return c, fmt.Errorf("what %s is set to is read at the first start only, before the guest can change it: name its host instead", rule.Reads())
		}
	}
	for _, rule := range change.Allow {
		c.Denied = slices.DeleteFunc(c.Denied, is(rule))
		had := slices.Contains(c.Allow, rule) && !slices.Contains(c.Deny, rule)
		if !had && !slices.Contains(c.Allowed, rule) {
			c.Allowed = append(c.Allowed, rule)
		}
	}
	return c, c.ValidateRules(c.Network)
}

// ValidateRules finds what is wrong with the rules of a network of that mode.
func (a Access) ValidateRules(mode network.Mode) error {
	allow, deny := a.Rules()
	if len(allow) == 0 && len(deny) == 0 {
		return nil
	}
	if !mode.Judged() {
		return remedy.Add(fmt.Errorf("the network mode %s has no rules", mode), remedy.MakeWith, "net", string(network.ModeAllowlist))
	}
	var errs []error
	if count := len(allow) + len(deny); count > gateway.MaxRules {
		errs = append(errs, fmt.Errorf("%d rules are too many: a network has at most %d", count, gateway.MaxRules))
	}
	check := func(rules []string, parse func(string) (policy.Rule, error)) {
		for _, text := range rules {
			rule, err := parse(text)
			if err == nil && mode == network.ModePublic {
				err = remedy.Add(rule.CheckPublic(), remedy.MakeWith, "net", string(network.ModeAllowlist))
			}
			if errors.Is(err, policy.ErrHost) {
				err = remedy.Add(err, remedy.MakeWith, "allow-host-port", "PORT")
			}
			errs = append(errs, err)
		}
	}
	check(allow, policy.ParseRule)
	check(deny, policy.ParseDeny)
	return errors.Join(errs...)
}
