package policy

import "slices"

// Preset is a set of rules under a name.
type Preset struct {
	Name  string
	Date  string // when the rules were last compared with what programs connect to
	Rules []string

	// Read tells that its rules are those of the registries, proxies and mirrors that a package manager of this name in the
	// guest is set to, which whoever starts the guest has to find out.
	Read bool
}

// Presets returns all presets. The hosts are those without which the programs do not work: what they send statistics to,
// for instance, is left out.
func Presets() []Preset { return slices.Clone(presets) }

var presets = []Preset{
	{Name: "anthropic", Date: "2026-11-26", Rules: []string{
		"api.anthropic.com", "platform.claude.com", "claude.ai", "claude.com", "mcp-proxy.anthropic.com",
	}},
	{Name: "github", Date: "2026-11-26", Rules: []string{
		"github.com", "github.com:22", "api.github.com", "codeload.github.com", "uploads.github.com",
		"raw.githubusercontent.com", "objects.githubusercontent.com", "release-assets.githubusercontent.com",
		"ghcr.io", "pkg-containers.githubusercontent.com",
	}},
	{Name: "google", Date: "2026-11-26", Rules: []string{
		"generativelanguage.googleapis.com", "cloudcode-pa.googleapis.com", "oauth2.googleapis.com",
		"accounts.google.com", "www.googleapis.com", "aiplatform.googleapis.com",
	}},
	{Name: "openai", Date: "2026-11-26", Rules: []string{"api.openai.com", "chatgpt.com", "auth.openai.com"}},
	{Name: "opencode", Date: "2026-11-26", Rules: []string{"models.opencode.ai", "opencode.ai"}},
	{Name: "cargo", Read: true},
	{Name: "debian", Read: true},
	{Name: "go", Read: true},
	{Name: "nix", Read: true},
	{Name: "npm", Read: true},
	{Name: "pypi", Read: true},
}
