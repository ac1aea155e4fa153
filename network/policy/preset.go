package policy

import "slices"

// Preset is a set of rules under a name.
type Preset struct {
	Name  string
	Date  string // when the rules were last compared with what programs connect to
	Rules []string
}

// Presets returns all presets. The hosts are those without which the programs do not work: what they send statistics to,
// for instance, is left out.
func Presets() []Preset { return slices.Clone(presets) }

var presets = []Preset{
	{"anthropic", "2026-11-26", []string{
		"api.anthropic.com", "platform.claude.com", "claude.ai", "claude.com", "mcp-proxy.anthropic.com",
	}},
	{"github", "2026-11-26", []string{
		"github.com", "github.com:22", "api.github.com", "codeload.github.com", "uploads.github.com",
		"raw.githubusercontent.com", "objects.githubusercontent.com", "release-assets.githubusercontent.com",
		"ghcr.io", "pkg-containers.githubusercontent.com",
	}},
	{"google", "2026-11-26", []string{
		"generativelanguage.googleapis.com", "cloudcode-pa.googleapis.com", "oauth2.googleapis.com",
		"accounts.google.com", "www.googleapis.com", "aiplatform.googleapis.com",
	}},
	{"openai", "2026-11-26", []string{"api.openai.com", "chatgpt.com", "auth.openai.com"}},
	{"opencode", "2026-11-26", []string{"models.opencode.ai", "opencode.ai"}},
}
