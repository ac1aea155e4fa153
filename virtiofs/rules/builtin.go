package rules

import "slices"

// Rule is a built-in one, as people read of it.
type Rule struct {
	Name string `json:"name"`
	// Patterns are as those of Choice. That of a rule which looks at more than the path covers all that it can refuse.
	Patterns []string `json:"patterns"`
	// Except are patterns for which the rule does not count.
	Except []string `json:"except,omitempty"`
	// Refused is what the guest cannot do: "write", or "read and write", and under which condition.
	Refused string `json:"refused"`
	// Reason is why, as a part of a sentence.
	Reason string `json:"reason"`
}

// kind is what a rule does with what its patterns cover.
type kind int

const (
	frozen    kind = iota // it cannot be written
	hidden                // nor read
	keyed                 // nor read, if it holds a secret key
	described             // code decides, and the patterns are for people
)

type rule struct {
	Rule
	kind   kind
	except []pattern
}

// List returns the built-in rules, in the order in which they are asked.
func List() []Rule {
	var list []Rule
	for _, r := range builtIn() {
		if r.Refused == "" {
			r.Refused = map[kind]string{frozen: "write", hidden: "read and write", keyed: "read and write, if it holds a secret key"}[r.kind]
		}
		r.Patterns, r.Except = slices.Clone(r.Patterns), slices.Clone(r.Except)
		list = append(list, r.Rule)
	}
	return list
}

// builtIn is the set "safe". What is in it makes something run on the host without that anybody decides to run what the
// project has: files that a tool takes for its own settings, which are seldom written, are here. Makefiles and package.json
// are not, because agents write them all the time, and because whoever runs make or npm test runs the project. Nor are
// attributes of Git (.gitattributes, .git/info/attributes): they choose among filters and drivers that settings define.
func builtIn() []rule {
	return []rule{
		{kind: described, Rule: Rule{
			Name: RuleDevice, Patterns: []string{"**"}, Refused: "make a device",
			Reason: "a device of the host can be behind it",
		}},
		{kind: described, Rule: Rule{
			Name: RuleSetID, Patterns: []string{"**"}, Refused: "set the set-user-id bit, or the set-group-id bit of a file",
			Reason: "other users of the host would run it as you",
		}},
		{kind: described, Rule: Rule{
			Name: gitDir, Patterns: []string{"**/.git", "**/.git/**", "**/*.git", "**/*.git/**", "**/HEAD"},
			Refused: "make .git a file or link, move or rename it or directories in it, make links in it, write commondir, remotes, branches and objects/info/alternates in it, or make or write HEAD outside of it",
			Reason:  "Git takes hooks and settings from where these lead",
		}},
		{kind: described, Rule: Rule{
			Name: gitHooks, Patterns: []string{"**/.git/hooks/**", "**/.git/**/hooks/**", "**/*.git/**/hooks/**"},
			Except: []string{"**/hooks/*.sample"}, Refused: "write", Reason: "Git executes it on the host",
		}},
		{kind: described, Rule: Rule{
			Name: gitConfig, Patterns: []string{
				"**/.git/config", "**/.git/config.worktree", "**/.git/**/config", "**/.git/**/config.worktree",
				"**/*.git/**/config", "**/*.git/**/config.worktree",
			},
			Refused: "change settings of which it is not known that they are harmless",
			Reason:  "Git executes what many settings say, such as core.hooksPath, core.fsmonitor and alias",
		}},
		{Rule: Rule{
			Name: "git-tools", Patterns: []string{
				"**/.githooks/**", "**/.husky/**", "**/.gitconfig", "**/.pre-commit-config.yaml", "**/.pre-commit-config.yml",
				"**/prek.toml", "**/lefthook.y*ml", "**/.lefthook.y*ml", "**/lefthook.toml", "**/.lefthook.toml", "**/lefthook.json",
				"**/.lefthook.json", "**/lefthook-local.*", "**/.lefthook-local.*", "**/.lefthook/**", "**/.lefthook-local/**",
				"**/.overcommit.yml", "**/.git-hooks/**",
			},
			Reason: "hooks of Git take it for their commands",
		}},
		{Rule: Rule{
			Name: "other-vcs", Patterns: []string{
				"**/.hg/hgrc", "**/.hg/hgrc-not-shared", "**/.jj/repo/config.toml", "**/.jj/workspace-config.toml",
			},
			Reason: "Mercurial and Jujutsu execute hooks and tools that it names",
		}},
		{Rule: Rule{
			Name: "shell", Patterns: []string{
				"**/.envrc", "**/.direnv/**", "**/mise.toml", "**/mise.*.toml", "**/.mise.toml", "**/.mise.*.toml", "**/.mise/**",
				"**/mise/config.toml", "**/mise/conf.d/**", "**/.config/mise.toml", "**/.autoenv", "**/.autoenv.zsh", "**/.autoenv_leave.zsh",
			},
			Reason: "a shell on the host executes it when it enters the directory",
		}},
		{Rule: Rule{
			Name: "editor", Patterns: []string{
				"**/.vscode/tasks.json", "**/.vscode/launch.json", "**/.vscode/settings.json", "**/.vscode/mcp.json",
				"**/.vscode/c_cpp_properties.json", "**/.vscode/cmake-kits.json",
				"**/*.code-workspace", "**/.idea/**", "**/.run/**", "**/.fleet/**", "**/.zed/**", "**/.helix/**",
				"**/*.sublime-project", "**/.exrc", "**/.nvimrc", "**/.nvim.lua", "**/.vimrc", "**/.lvimrc", "**/.dir-locals.el",
				"**/.dir-locals-2.el",
			},
			Reason: "an editor on the host takes tasks, programs and settings from it",
		}},
		{Rule: Rule{
			Name:     "devcontainer",
			Patterns: []string{"**/.devcontainer/**", "**/.devcontainer.json"},
			Reason:   "an editor executes its initializeCommand on the host",
		}},
		{Rule: Rule{
			Name: "ai-agent", Patterns: []string{
				"**/.mcp.json", "**/.claude/settings*", "**/.claude/commands/**", "**/.claude/agents/**", "**/.claude/hooks/**",
				"**/.claude/skills/**", "**/.claude/plugins/**", "**/.claude/output-styles/**", "**/.claude-plugin/**", "**/.cursor/**",
				"**/.gemini/**", "**/.codex/**", "**/.opencode/**", "**/opencode.json", "**/opencode.jsonc", "**/.github/hooks/**",
				"**/.copilot/**", "**/.windsurf/**", "**/.continue/**", "**/.roo/**", "**/.kiro/**", "**/.qwen/**", "**/.amp/**",
				"**/.factory/**", "**/.agents/**", "**/.aider.conf.yml", "**/crush.json", "**/.crush.json",
			},
			Reason: "an AI agent on the host takes hooks, commands, servers or permissions from it",
		}},
		{Rule: Rule{
			Name: "packages", Patterns: []string{
				"**/.npmrc", "**/.yarnrc", "**/.yarnrc.yml", "**/.yarn/releases/**", "**/.yarn/plugins/**", "**/.pnpmfile.cjs",
				"**/.pnpmfile.mjs", "**/bunfig.toml", "**/.cargo/config", "**/.cargo/config.toml", "**/.bazelrc", "**/.mvn/**",
				"**/.bundle/config",
			},
			Reason: "a package manager or build tool on the host loads programs or sends keys where it says",
		}},
		{Rule: Rule{
			Name: "startup", Patterns: []string{
				"**/.gdbinit", "**/.lldbinit", "**/.irbrc", "**/.pryrc", "**/.Rprofile",
			},
			Reason: "a debugger or an interpreter on the host executes it when it starts in the directory",
		}},
		{kind: hidden, Rule: Rule{
			Name: "env", Patterns: []string{"**/.env", "**/.env.*", "**/.envrc.*", "**/.dev.vars"},
			Except: []string{
				"**/.env*.example", "**/.env*.sample", "**/.env*.template", "**/.env*.tmpl", "**/.env*.dist", "**/.env*.defaults",
				"**/.env*.schema",
			},
			Reason: "it is where a project's passwords and keys are",
		}},
		{kind: hidden, Rule: Rule{
			Name: "login", Patterns: []string{
				"**/.netrc", "**/_netrc", "**/.git-credentials", "**/.git/credentials", "**/.pypirc", "**/.aws/credentials",
				"**/.aws/config", "**/.aws/sso/**", "**/.aws/cli/**", "**/.azure/accesstokens.json", "**/.azure/msal_token_cache.*",
				"**/.config/gcloud/**", "**/application_default_credentials.json", "**/.config/gh/hosts.yml", "**/.kube/**",
				"**/kubeconfig", "**/kubeconfig.yaml", "**/kubeconfig.yml", "**/.docker/config.json", "**/.dockercfg",
				"**/.vault-token", "**/.terraform.d/credentials.tfrc.json", "**/.terraformrc", "**/.pgpass", "**/.my.cnf", "**/.s3cfg",
				"**/.boto", "**/.cargo/credentials", "**/.cargo/credentials.toml", "**/.gem/credentials", "**/.claude.json",
				"**/.claude/.credentials.json", "**/.codex/auth.json", "**/.gemini/oauth_creds.json", "**/master.key",
			},
			Reason: "it is a login",
		}},
		{kind: hidden, Rule: Rule{
			Name: "key", Patterns: []string{
				"**/.ssh/**", "**/.gnupg/**", "**/id_rsa", "**/id_dsa", "**/id_ecdsa", "**/id_ecdsa_sk", "**/id_ed25519",
				"**/id_ed25519_sk", "**/*.ppk", "**/*.p12", "**/*.pfx", "**/*.jks", "**/*.keystore", "**/*.kdbx", "**/*.keychain",
				"**/*.keychain-db", "**/.password-store/**", "**/.local/share/keyrings/**",
			},
			Except: []string{"**/debug.keystore"},
			Reason: "it is a secret key, or a store of such",
		}},
		{kind: keyed, Rule: Rule{
			Name: "key-file", Patterns: []string{
				"**/*.pem", "**/*.key", "**/*.p8", "**/*.asc", "**/*.agekey", "**/*service*account*.json", "**/*-firebase-adminsdk-*.json",
			},
			Reason: "it holds a secret key",
		}},
	}
}
