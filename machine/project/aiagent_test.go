package project

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/sourcery-zone/sandbox/network/secret"
)

// TestAnAIAgentReachesTheHostsOfItsSecrets has secrets that are sent nowhere but to hosts that the same preset opens.
func TestAnAIAgentReachesTheHostsOfItsSecrets(t *testing.T) {
	for _, name := range AIAgents() {
		a, err := FindAIAgent(name)
		if err != nil {
			t.Fatal(err)
		}
		allow, secrets, err := a.Needs(func(secret.Spec) bool { return true }, nil)
		if err != nil || len(secrets) == 0 {
			t.Errorf("%s needs %q: %v", name, secrets, err)
		}
		list := policy.Allowlist{Public: &policy.Policy{}}
		for _, text := range allow {
			rule, err := policy.ParseRule(text)
			if err != nil {
				t.Fatal(err)
			}
			list.Rules = append(list.Rules, rule)
		}
		for _, text := range secrets {
			s, err := secret.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range s.Hosts {
				if v := list.Name(h.Name, h.Port, policy.TCP); !v.Allow {
					t.Errorf("%s has %s for %s, which is closed (%s)", name, s.Name, h, v.Rule)
				}
			}
		}
	}
}

func TestAnAIAgentHasWhatItsUserHas(t *testing.T) {
	has := func(names ...string) func(secret.Spec) bool {
		return func(s secret.Spec) bool { return slices.Contains(names, s.Name) }
	}
	for name, tt := range map[string]struct {
		agent   string
		has     func(secret.Spec) bool
		named   []string
		secrets string // their names
		missing bool
	}{
		"the first":               {"claude", has("ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"), nil, "CLAUDE_CODE_OAUTH_TOKEN", false},
		"the other":               {"claude", has("ANTHROPIC_API_KEY"), nil, "ANTHROPIC_API_KEY", false},
		"a login":                 {"claude", has("CLAUDE_LOGIN"), nil, "CLAUDE_LOGIN=login:claude", false},
		"a key before a login":    {"gemini", has("GEMINI_LOGIN", "GEMINI_API_KEY"), nil, "GEMINI_API_KEY", false},
		"one named otherwise":     {"claude", has("CLAUDE_CODE_OAUTH_TOKEN"), []string{"CLAUDE_CODE_OAUTH_TOKEN"}, "", false},
		"the other, named":        {"claude", has("CLAUDE_CODE_OAUTH_TOKEN"), []string{"ANTHROPIC_API_KEY"}, "", false},
		"all of several":          {"opencode", has("ANTHROPIC_API_KEY", "OPENAI_API_KEY"), nil, "ANTHROPIC_API_KEY OPENAI_API_KEY", false},
		"none":                    {"gemini", has("ANTHROPIC_API_KEY"), nil, "", true},
		"none of several":         {"aider", has(), nil, "", true},
		"another one of several":  {"aider", has("OPENAI_API_KEY"), []string{"ANTHROPIC_API_KEY"}, "OPENAI_API_KEY", false},
		"what is not one of them": {"gemini", has(), []string{"OTHER"}, "", true},
	} {
		a, err := FindAIAgent(tt.agent)
		if err != nil {
			t.Fatal(err)
		}
		_, secrets, err := a.Needs(tt.has, tt.named)
		_, missing := errors.AsType[*MissingSecretError](err)
		var got []string
		for _, text := range secrets {
			name, _, _ := strings.Cut(text, "@")
			got = append(got, name)
		}
		if missing != tt.missing || strings.Join(got, " ") != tt.secrets {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := FindAIAgent("clod"); err == nil || !strings.Contains(err.Error(), "claude, codex") {
		t.Errorf("an agent that is not known: %v", err)
	}
}
