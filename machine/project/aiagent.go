package project

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/network/login"
	"github.com/sourcery-zone/sandbox/network/secret"
)

// AIAgent is a program that works in a sandbox by itself, and is known to the provider of its model by a secret of the
// user's.
type AIAgent struct {
	Name    string
	Command string   // that starts it, in the guest
	Package string   // by which an image gets it, or nothing
	Allow   []string // rules for the hosts without which it does not work
	Secrets []string // as of secret.Parse; without a source, the user has it under the same name
	All     bool     // all of Secrets that there are, as it works with several providers; otherwise the first one
}

// aiAgents are data: which hosts a program sends its key to was seen on the way (see docs/secrets.md), and changes.
var aiAgents = []AIAgent{
	{
		Name: "claude", Command: "claude", Package: "claude-code", Allow: []string{"preset:anthropic"},
		// The token of a subscription, as claude setup-token prints it, goes before a key, which costs more.
		Secrets: []string{"CLAUDE_CODE_OAUTH_TOKEN@api.anthropic.com", "ANTHROPIC_API_KEY@api.anthropic.com", loginAt("claude")},
	},
	{
		Name: "codex", Command: "codex", Package: "codex", Allow: []string{"preset:openai"},
		// It asks the second host which models there are, with the same key. In the guest, it looks for it under the first name only.
		Secrets: []string{
			"CODEX_API_KEY@api.openai.com,chatgpt.com",
			"CODEX_API_KEY=env:OPENAI_API_KEY@api.openai.com,chatgpt.com", "CODEX_API_KEY=store:OPENAI_API_KEY@api.openai.com,chatgpt.com",
			loginAt("codex"),
		},
	},
	{
		Name: "gemini", Command: "gemini", Package: "gemini-cli", Allow: []string{"preset:google"},
		Secrets: []string{"GEMINI_API_KEY@generativelanguage.googleapis.com", loginAt("gemini")},
	},
	{
		Name: "opencode", Command: "opencode", Package: "opencode", Allow: []string{"preset:opencode"}, All: true,
		Secrets: []string{
			"ANTHROPIC_API_KEY@api.anthropic.com", "OPENAI_API_KEY@api.openai.com",
			"GEMINI_API_KEY@generativelanguage.googleapis.com", "OPENROUTER_API_KEY@openrouter.ai", "OPENCODE_API_KEY@opencode.ai",
		},
	},
	{
		Name: "aider", Command: "aider", All: true,
		Secrets: []string{
			"ANTHROPIC_API_KEY@api.anthropic.com", "OPENAI_API_KEY@api.openai.com",
			"GEMINI_API_KEY@generativelanguage.googleapis.com", "OPENROUTER_API_KEY@openrouter.ai",
		},
	},
}

// What an AI agent gets of the user's configuration of it, the least first. Each gives what those before it give.
const (
	AgentHomeNone     = "none"
	AgentHomeConfig   = "config"   // a copy of what is harmless
	AgentHomeSessions = "sessions" // and a place for sessions that outlives the sandbox
)

// AgentHomes are all of these.
var AgentHomes = []string{AgentHomeNone, AgentHomeConfig, AgentHomeSessions}

// loginAt is the secret by which an agent uses the login at a provider.
func loginAt(provider string) string {
	p, err := login.Find(provider)
	if err != nil {
		panic(err) // a test reads each
	}
	return fmt.Sprintf("%s_LOGIN=%s:%s@%s", strings.ToUpper(p.Name), secret.FromLogin, p.Name, p.Places)
}

// AIAgents are the names of those that an option can choose.
func AIAgents() []string {
	var names []string
	for _, a := range aiAgents {
		names = append(names, a.Name)
	}
	return names
}

// FindAIAgent is the one of that name.
func FindAIAgent(name string) (AIAgent, error) {
	i := slices.IndexFunc(aiAgents, func(a AIAgent) bool { return a.Name == name })
	if i < 0 {
		return AIAgent{}, fmt.Errorf("there is no preset for an AI agent %q, but for %s: with others, open the hosts and name the secrets yourself", name, strings.Join(AIAgents(), ", "))
	}
	return aiAgents[i], nil
}

// MissingSecretError says that there is none of an AI agent's secrets.
type MissingSecretError struct{ Agent AIAgent }

func (e *MissingSecretError) Error() string {
	return fmt.Sprintf("%s has to be known to a provider, and you have none of its secrets: export %s", e.Agent.Name, or(e.Agent.Variables()))
}

// Variables are those of the user's that can have the agent's secrets, the best first.
func (a AIAgent) Variables() (names []string) {
	for _, s := range a.specs() {
		if s.Source.Kind == secret.FromLogin {
			continue
		}
		if name := cmp.Or(s.Source.Of, s.Name); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// SecretOf is how a variable that one of the agents is known by is named as a secret, or nothing.
func SecretOf(variable string) string {
	for _, a := range aiAgents {
		for _, text := range a.Secrets {
			if name, _, _ := strings.Cut(text, "@"); name == variable {
				return text
			}
		}
	}
	return ""
}

// Logins are the providers at which a login of the user's is one of the agent's secrets.
func (a AIAgent) Logins() (providers []string) {
	for _, s := range a.specs() {
		if s.Source.Kind == secret.FromLogin {
			providers = append(providers, s.Source.Of)
		}
	}
	return providers
}

func (a AIAgent) specs() (specs []secret.Spec) {
	for _, text := range a.Secrets {
		s, err := secret.Parse(text)
		if err != nil {
			panic(err) // a test reads each
		}
		specs = append(specs, s)
	}
	return specs
}

// Needs are the rules and the secrets that the agent works with, of those of its secrets that the user has, and of which
// named are none, as they were given otherwise. The error is a *MissingSecretError if that leaves it without any.
func (a AIAgent) Needs(has func(secret.Spec) bool, named []string) (allow, secrets []string, err error) {
	allow = slices.Clone(a.Allow)
	isNamed := func(s secret.Spec) bool { return slices.Contains(named, s.Name) }
	known := slices.ContainsFunc(a.specs(), isNamed)
	for _, s := range a.specs() {
		switch {
		case isNamed(s):
		case !has(s) || known && !a.All:
			continue
		default:
			secrets = append(secrets, s.String())
		}
		known = true
		for _, h := range s.Hosts {
			if rule := h.String(); a.All && !slices.Contains(allow, rule) {
				allow = append(allow, rule)
			}
		}
	}
	if !known {
		return nil, nil, &MissingSecretError{a}
	}
	return allow, secrets, nil
}
