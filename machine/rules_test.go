package machine

import (
	"slices"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/network"
)

func TestRulesOfAStoppedSandboxAreInItsConfiguration(t *testing.T) {
	config := testConfig("work")
	config.Network, config.Allow = network.ModeAllowlist, []string{"made.example"}
	s, err := testHost(t).Create(config)
	if err != nil {
		t.Fatal(err)
	}
	has := func(change api.RuleChange, allow, deny string) {
		t.Helper()
		if err := s.ChangeRules(t.Context(), change); err != nil {
			t.Errorf("%+v: %v", change, err)
		}
		c, err := s.Config()
		if err != nil {
			t.Fatal(err)
		}
		opens, closes := c.Rules()
		if got := strings.Join(opens, " "); got != allow {
			t.Errorf("after %+v it allows %q, want %q", change, got, allow)
		}
		if got := strings.Join(closes, " "); got != deny {
			t.Errorf("after %+v it denies %q, want %q", change, got, deny)
		}
	}
	has(api.RuleChange{Allow: []string{"a.example", "made.example", "a.example", "b.example:22"}}, "made.example a.example b.example:22", "")
	has(api.RuleChange{Deny: []string{"a.example", "made.example", "made.example"}}, "made.example b.example:22", "a.example made.example")
	has(api.RuleChange{Allow: []string{"made.example"}}, "made.example b.example:22", "a.example")
	if err := s.ChangeRules(t.Context(), api.RuleChange{Allow: []string{"c.example", "a..b"}}); err == nil || !strings.Contains(err.Error(), `the rule "a..b" is wrong`) {
		t.Errorf("what is no rule is taken: %v", err)
	}
	has(api.RuleChange{}, "made.example b.example:22", "a.example")
	has(api.RuleChange{Reset: true}, "made.example", "")
	if err := s.ChangeRules(t.Context(), api.RuleChange{Allow: slices.Repeat([]string{"x.example"}, 300)}); err != nil {
		t.Errorf("one rule is too many: %v", err)
	}
	if err := s.AnswerQuestion(t.Context(), "k3f9ab", "once"); err == nil || len(api.Remedies(err)) == 0 {
		t.Errorf("a question of a sandbox that does not run is answered: %v", err)
	}
}

func TestWhatASandboxWasMadeWithIsDeniedUntilItIsAllowed(t *testing.T) {
	config := testConfig("work")
	config.Network, config.Allow, config.Deny = network.ModeAllowlist, []string{"a.example", "*.example"}, []string{"a.example", "b.example"}
	for _, step := range []struct {
		change      api.RuleChange
		allow, deny string
	}{
		{api.RuleChange{}, "a.example *.example", "a.example b.example"},
		{api.RuleChange{Allow: []string{"a.example"}}, "a.example *.example a.example", "b.example"},
		{api.RuleChange{Allow: []string{"b.example"}, Deny: []string{"c.example"}}, "a.example *.example a.example b.example", "c.example"},
		{api.RuleChange{Deny: []string{"a.example", "b.example"}}, "a.example *.example", "a.example b.example c.example"},
		{api.RuleChange{Allow: []string{"b.example"}}, "a.example *.example b.example", "a.example c.example"},
		{api.RuleChange{Reset: true}, "a.example *.example", "a.example b.example"},
	} {
		var err error
		if config, err = config.ChangeRules(step.change); err != nil {
			t.Fatal(err)
		}
		allow, deny := config.Rules()
		if strings.Join(allow, " ") != step.allow || strings.Join(deny, " ") != step.deny {
			t.Errorf("after %+v: %q and %q, want %q and %q", step.change, allow, deny, step.allow, step.deny)
		}
	}
	config.Deny = []string{"https://a.example/**"}
	if err := config.ValidateRules(config.Network); err == nil || !strings.Contains(err.Error(), "only whole hosts be closed") {
		t.Errorf("a rule that denies no host: %v", err)
	}
}
