package agenthome

// Agent is an AI agent of which it is known where it has what.
type Agent struct {
	Name     string
	Sessions string // where the agent keeps its sessions and nothing else, below the home; empty: nowhere

	dir      string   // its configuration, below the home
	variable string   // that says where else this is on the host, or nothing
	whole    []string // files and directories in it that are for the agent to read
	settings string   // the file in it with settings, JSON or TOML
	harmless []string // names of settings, with dots between the names of the tables that they are in

	// welcome answers what the agent asks in a fresh home, in its settings or in further files, by their paths below the home.
	welcome func(g Guest, settings map[string]any) map[string]any
}

// Guest is what an agent is told of its machine.
type Guest struct {
	Dir          string            // where it works
	Placeholders map[string]string // of its secrets, by the variables
}

// Find returns the agent of that name, if anything is known of it.
func Find(name string) (Agent, bool) {
	for _, a := range agents {
		if a.Name == name {
			return a, true
		}
	}
	return Agent{}, false
}

// agents are data. Names are from the agents' own references of their settings.
var agents = []Agent{
	{
		Name: "claude", dir: ".claude", variable: "CLAUDE_CONFIG_DIR", Sessions: ".claude/projects",
		whole:    []string{"CLAUDE.md", "agents", "commands", "output-styles", "rules", "skills"},
		settings: "settings.json",
		harmless: []string{"alwaysThinkingEnabled", "effortLevel", "includeCoAuthoredBy", "language", "model", "outputStyle", "prefersReducedMotion", "respectGitignore", "spinnerTipsEnabled"},
		welcome: func(g Guest, _ map[string]any) map[string]any {
			answers := map[string]any{
				"hasCompletedOnboarding": true,
				"projects":               map[string]any{g.Dir: map[string]any{"hasTrustDialogAccepted": true, "hasCompletedProjectOnboarding": true}},
			}
			// It asks whether a key in its environment is to be used, and remembers it by its end.
			if key := g.Placeholders["ANTHROPIC_API_KEY"]; key != "" {
				const kept = 20 // characters
				answers["customApiKeyResponses"] = map[string]any{"approved": []string{key[max(0, len(key)-kept):]}, "rejected": []string{}}
			}
			return map[string]any{".claude.json": answers}
		},
	},
	{
		Name: "codex", dir: ".codex", variable: "CODEX_HOME", Sessions: ".codex/sessions",
		whole:    []string{"AGENTS.md", "prompts", "skills"},
		settings: "config.toml",
		harmless: []string{"approval_policy", "file_opener", "hide_agent_reasoning", "model", "model_reasoning_effort", "model_reasoning_summary", "model_verbosity", "personality", "review_model", "sandbox_mode", "show_raw_agent_reasoning", "web_search"},
		welcome: func(g Guest, settings map[string]any) map[string]any {
			settings["projects"] = map[string]any{g.Dir: map[string]any{"trust_level": "trusted"}}
			return nil
		},
	},
	{
		Name: "gemini", dir: ".gemini", Sessions: ".gemini/tmp",
		whole:    []string{"GEMINI.md", "agents", "commands", "skills"},
		settings: "settings.json",
		harmless: []string{"context.fileName", "general.vimMode", "model.maxSessionTurns", "model.name", "ui.hideBanner", "ui.hideTips", "ui.theme"},
		welcome: func(g Guest, settings map[string]any) map[string]any {
			for _, known := range [][2]string{{"GEMINI_API_KEY", "gemini-api-key"}, {"GEMINI_LOGIN", "oauth-personal"}} {
				if g.Placeholders[known[0]] != "" {
					settings["security"] = map[string]any{"auth": map[string]any{"selectedType": known[1]}}
					break
				}
			}
			return map[string]any{".gemini/trustedFolders.json": map[string]any{g.Dir: "TRUST_FOLDER"}}
		},
	},
	{
		// Its sessions lie beside its logins, in one database.
		Name: "opencode", dir: ".config/opencode",
		whole:    []string{"AGENTS.md", "agent", "agents", "command", "commands", "mode", "modes", "skill", "skills", "themes"},
		settings: "opencode.json",
		harmless: []string{"default_agent", "model", "share", "small_model", "theme"},
	},
}
