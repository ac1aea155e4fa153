package agenthome

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"golang.org/x/sys/unix"
)

// secretText is in all that must not go along.
const secretText = "s3cr3t-0f-the-user"

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

func find(t *testing.T, name string) Agent {
	t.Helper()
	a, ok := Find(name)
	if !ok {
		t.Fatalf("%s is not known", name)
	}
	return a
}

// home is what the archive for a guest makes of an empty home.
func home(t *testing.T, a Agent, c Config, g Guest) (files map[string]string, modes map[string]int64) {
	t.Helper()
	list, err := a.Files(c, g)
	if err != nil {
		t.Fatal(err)
	}
	archive, err := Archive(list)
	if err != nil {
		t.Fatal(err)
	}
	files, modes = map[string]string{}, map[string]int64{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, modes
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if modes[h.Name] = h.Mode; h.Typeflag == tar.TypeReg {
			if dir := filepath.Dir(h.Name) + "/"; dir != "./" && modes[dir] != 0o700 {
				t.Errorf("%s comes before its directory", h.Name)
			}
			files[h.Name] = string(content)
		}
	}
}

func TestOnlyWhatIsHarmlessGoesAlong(t *testing.T) {
	outside := t.TempDir()
	write(t, outside, map[string]string{"key": secretText, "dir/key": secretText})
	for name, test := range map[string]struct {
		files map[string]string // in the agent's directory
		want  []string          // in the guest's home
		names string
	}{
		"claude": {map[string]string{
			"CLAUDE.md": "be kind", "skills/pdf/SKILL.md": "read", "skills/pdf/fill.sh": "#!/bin/sh", "commands/a.md": "a", "agents/b.md": "b",
			"settings.json": `{"model":"opus","language":"de","env":{"KEY":"` + secretText + `"},"hooks":{"PreToolUse":"` + secretText + `"},
				"apiKeyHelper":"` + secretText + `","mcpServers":{"x":{"command":"` + secretText + `"}},"outputStyle":{"not":"` + secretText + `"},
				"effortLevel":"` + strings.Repeat(secretText, 20) + `"}`,
			".credentials.json": secretText, "history.jsonl": secretText, "projects/x/1.jsonl": secretText, "settings.local.json": secretText,
			"plugins/p/x": secretText, "skills/pdf/.env": secretText, "skills/pdf/id_ed25519": secretText, "skills/x/.git/config": secretText,
			"skills/pdf/server.pem": "-----BEGIN PRIVATE KEY-----" + secretText, "skills/pdf/root.pem": "-----BEGIN CERTIFICATE-----",
		}, []string{
			".claude.json", ".claude/CLAUDE.md", ".claude/agents/b.md", ".claude/commands/a.md", ".claude/settings.json",
			".claude/skills/pdf/SKILL.md", ".claude/skills/pdf/fill.sh", ".claude/skills/pdf/root.pem",
		}, "CLAUDE.md agents commands skills language model"},
		"codex": {map[string]string{
			"AGENTS.md": "be kind", "auth.json": secretText, "history.jsonl": secretText, "sessions/1": secretText, "log/x": secretText,
			"config.toml": "model = \"gpt\"\nnotify = [\"" + secretText + "\"]\n[mcp_servers.x]\ncommand = \"" + secretText + "\"\n[model_providers.x]\nhttp_headers = { k = \"" + secretText + "\" }\n[projects.\"/" + secretText + "\"]\ntrust_level = \"trusted\"\n",
		}, []string{".codex/AGENTS.md", ".codex/config.toml"}, "AGENTS.md model"},
		"gemini": {map[string]string{
			"GEMINI.md": "be kind", "oauth_creds.json": secretText, "google_accounts.json": secretText, "tmp/x/logs.json": secretText, ".env": secretText,
			"settings.json": `{"ui":{"theme":"Dark","customThemes":{"x":"` + secretText + `"}},"general":{"vimMode":true},"mcpServers":{"x":{"env":{"K":"` + secretText + `"}}},"tools":{"discoveryCommand":"` + secretText + `"}}`,
		}, []string{".gemini/GEMINI.md", ".gemini/settings.json", ".gemini/trustedFolders.json"}, "GEMINI.md general.vimMode ui.theme"},
		"opencode": {map[string]string{
			"AGENTS.md": "be kind", "command/a.md": "a", "plugin/x.js": secretText, "tool/x.js": secretText,
			"opencode.json": `{"model":"a/b","provider":{"x":{"options":{"apiKey":"` + secretText + `"}}},"mcp":{"x":{"command":["` + secretText + `"]}}}`,
		}, []string{".config/opencode/AGENTS.md", ".config/opencode/command/a.md", ".config/opencode/opencode.json"}, "AGENTS.md command model"},
	} {
		t.Run(name, func(t *testing.T) {
			a, dir := find(t, name), t.TempDir()
			write(t, dir, test.files)
			if name == "claude" {
				err := errors.Join(os.Symlink(filepath.Join(outside, "key"), filepath.Join(dir, "skills/out")), os.Symlink(outside, filepath.Join(dir, "skills/outdir")),
					os.Symlink("../.credentials.json", filepath.Join(dir, "skills/in")), os.Symlink(outside, filepath.Join(dir, "output-styles")),
					unix.Mkfifo(filepath.Join(dir, "skills/fifo"), 0o600), os.Chmod(filepath.Join(dir, "skills/pdf/fill.sh"), 0o755))
				if err != nil {
					t.Fatal(err)
				}
			}
			c, err := a.Read(dir)
			if err != nil {
				t.Fatal(err)
			}
			files, modes := home(t, a, c, Guest{Dir: "/work"})
			var got []string
			for path, content := range files {
				if got = append(got, path); strings.Contains(content, secretText) {
					t.Errorf("%s tells a secret", path)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, test.want) {
				t.Errorf("the guest has %q, and not %q", got, test.want)
			}
			if names := strings.Join(c.Names(a), " "); names != test.names {
				t.Errorf("said is %q, and not %q", names, test.names)
			}
			if name == "claude" {
				if modes[".claude/skills/pdf/fill.sh"] != 0o700 || modes[".claude/CLAUDE.md"] != 0o600 {
					t.Errorf("modes are %v", modes)
				}
				if len(c.LeftOut) != 8 {
					t.Errorf("left out are %d:\n%s", len(c.LeftOut), strings.Join(c.LeftOut, "\n"))
				}
			}
		})
	}
}

func TestAConfigurationThatIsMissingOrBrokenIsNoReasonNotToStart(t *testing.T) {
	for _, a := range agents {
		if c, err := a.Read(filepath.Join(t.TempDir(), "missing")); err != nil || len(c.Files)+len(c.Settings)+len(c.LeftOut) > 0 {
			t.Errorf("%s: %+v, %v", a.Name, c, err)
		}
		dir := t.TempDir()
		write(t, dir, map[string]string{a.settings: "{= " + secretText})
		if c, err := a.Read(dir); err != nil || len(c.LeftOut) != 1 || strings.Contains(c.LeftOut[0], secretText) {
			t.Errorf("%s: %+v, %v", a.Name, c, err)
		}
	}
}

func TestAConfigurationIsBounded(t *testing.T) {
	a, dir := find(t, "claude"), t.TempDir()
	write(t, dir, map[string]string{"CLAUDE.md": "", "settings.json": "{}"})
	large := filepath.Join(dir, "skills")
	write(t, dir, map[string]string{"skills/large": ""})
	if err := os.Truncate(filepath.Join(large, "large"), maxBytes+1); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Read(dir); err == nil || !strings.Contains(err.Error(), "32 MiB") {
		t.Errorf("too large: %v", err)
	}
}

func TestAgentsAreWelcome(t *testing.T) {
	claude, _ := home(t, find(t, "claude"), Config{}, Guest{Dir: "/work", Placeholders: map[string]string{"ANTHROPIC_API_KEY": "sk-ant-api03-0123456789abcdefghij"}})
	var answers struct {
		HasCompletedOnboarding bool
		Projects               map[string]struct{ HasTrustDialogAccepted bool }
		CustomAPIKeyResponses  struct{ Approved []string }
	}
	err := json.Unmarshal([]byte(claude[".claude.json"]), &answers)
	if err != nil || !answers.HasCompletedOnboarding || !answers.Projects["/work"].HasTrustDialogAccepted || !slices.Equal(answers.CustomAPIKeyResponses.Approved, []string{"0123456789abcdefghij"}) {
		t.Errorf("claude: %+v, %v", answers, err)
	}

	codex, _ := home(t, find(t, "codex"), Config{}, Guest{Dir: "/work of mine"})
	var config struct {
		Projects map[string]struct {
			Level string `toml:"trust_level"`
		}
	}
	if err := toml.Unmarshal([]byte(codex[".codex/config.toml"]), &config); err != nil || config.Projects["/work of mine"].Level != "trusted" {
		t.Errorf("codex: %+v, %v", codex, err)
	}

	gemini, _ := home(t, find(t, "gemini"), Config{Settings: map[string]any{"ui": map[string]any{"theme": "Dark"}}}, Guest{Dir: "/work", Placeholders: map[string]string{"GEMINI_LOGIN": "x"}})
	if !strings.Contains(gemini[".gemini/settings.json"], `"selectedType": "oauth-personal"`) || !strings.Contains(gemini[".gemini/settings.json"], `"theme": "Dark"`) ||
		gemini[".gemini/trustedFolders.json"] != `{"/work":"TRUST_FOLDER"}` {
		t.Errorf("gemini: %q", gemini)
	}
	if opencode, _ := home(t, find(t, "opencode"), Config{}, Guest{Dir: "/work"}); len(opencode) != 0 {
		t.Errorf("opencode: %q", opencode)
	}
}
