package login

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Provider is who gives a login, as its own program knows it. All of it is public.
type Provider struct {
	Name    string
	Program string // that uses the login, as people call it

	Authorize    string            // where the user consents, in a browser
	Parameters   map[string]string // of that address, besides those of OAuth (RFC 6749) and PKCE (RFC 7636)
	Redirect     string            // where the browser is led to then; its port is any if it is 0
	Token        string            // where codes and refresh tokens become access tokens, by POST
	ClientID     string
	ClientSecret string // which is in each copy of the program, and none; empty: none is asked for
	Scopes       []string
	JSONCode     bool   // a code is sent to Token in JSON, and not as a form
	JSONRefresh  bool   // and so is a refresh token
	UserAgent    string // without which Token refuses requests; empty: any will do

	Places      string   // where access tokens go, as after the @ of a secret
	Variables   []string // as NAME=VALUE, by which the program uses the login
	Own         string   // the program's own file with a login, below its user's home
	OwnVariable string   // that names the directory of Own in place of the one below the home

	ownMembers []string // of Own, an object of JSON, that are the login; empty: all
	readOwn    func(text []byte) (Login, error)
	files      func(l Login, access string) []File
	answer     func(l Login, access string) any // to a request to Token
}

// File is one that the provider's program finds in the guest.
type File struct {
	Path    string // below the user's home
	Content []byte
	// Ours is text by which a file that is there already is known as one of these, which is replaced. Others are left alone; and all
	// of them, if it is empty.
	Ours string
}

// far is when what guests have expires: on 2100-01-01, in seconds, so that their programs do not refresh anything.
const far = 4102444800

// farIn is as many seconds from now as programs keep in 32 bits, even in milliseconds: some days. They ask again then.
const farIn = 20 * 24 * 3600

// refreshPlaceholder is what guests have as the refresh token, which goes nowhere.
const refreshPlaceholder = "stays-on-the-host-of-this-sandbox"

var providers = []Provider{
	{
		Name: "claude", Program: "Claude Code",
		Authorize:  "https://claude.com/cai/oauth/authorize",
		Parameters: map[string]string{"code": "true"}, // show it, to be copied
		Redirect:   "https://platform.claude.com/oauth/code/callback",
		Token:      "https://platform.claude.com/v1/oauth/token",
		ClientID:   "9d1c250a-e61b-44d9-88ed-5944d1962f5e",
		Scopes:     []string{"user:profile", "user:inference", "user:sessions:claude_code", "user:mcp_servers", "user:file_upload"},
		JSONCode:   true, JSONRefresh: true,
		UserAgent: "claude-cli/2.1.197 (external, sandbox)",
		Places:    "api.anthropic.com,header=Authorization",
		Own:       ".claude/.credentials.json", OwnVariable: "CLAUDE_CONFIG_DIR",
		ownMembers: []string{"claudeAiOauth"},
		readOwn:    readClaude, files: claudeFiles, answer: claudeAnswer,
	},
	{
		Name: "codex", Program: "Codex",
		Authorize:  "https://auth.openai.com/oauth/authorize",
		Parameters: map[string]string{"id_token_add_organizations": "true", "codex_cli_simplified_flow": "true", "originator": "codex_cli_rs"},
		Redirect:   "http://localhost:1455/auth/callback",
		Token:      "https://auth.openai.com/oauth/token",
		ClientID:   "app_EMoamEEZ73f0CkXaXp7hrann",
		Scopes:     []string{"openid", "profile", "email", "offline_access", "api.connectors.read", "api.connectors.invoke"},

		JSONRefresh: true,
		Places:      "chatgpt.com,header=Authorization",
		Own:         ".codex/auth.json", OwnVariable: "CODEX_HOME",
		ownMembers: []string{"auth_mode", "tokens", "last_refresh"},
		readOwn:    readCodex, files: codexFiles, answer: codexAnswer,
	},
	{
		Name: "gemini", Program: "Gemini CLI",
		Authorize:  "https://accounts.google.com/o/oauth2/v2/auth",
		Parameters: map[string]string{"access_type": "offline", "prompt": "consent"}, // without which there is no refresh token the second time
		Redirect:   "http://127.0.0.1:0/oauth2callback",
		Token:      "https://oauth2.googleapis.com/token",
		ClientID:   "681255809395-oo8ft2oprdrnp9e3aqf6av3hmdib135j.apps.googleusercontent.com",
		// Programs that look for secrets in sources take it for one.
		ClientSecret: "GOCSPX" + "-4uHgMPm-1o7Sk-geV6Cu5clXFsxl",
		Scopes:       []string{"https://www.googleapis.com/auth/cloud-platform", "https://www.googleapis.com/auth/userinfo.email", "https://www.googleapis.com/auth/userinfo.profile"},
		// It asks the second one whether its token is good.
		Places:    "cloudcode-pa.googleapis.com,oauth2.googleapis.com/tokeninfo,header=Authorization",
		Variables: []string{"GOOGLE_GENAI_USE_GCA=true"},
		Own:       ".gemini/oauth_creds.json",
		readOwn:   readGemini, files: geminiFiles, answer: geminiAnswer,
	},
}

// Names are those of the providers.
func Names() []string {
	var names []string
	for _, p := range providers {
		names = append(names, p.Name)
	}
	return names
}

// Find is the provider of that name. Its login has the same name.
func Find(name string) (Provider, error) {
	i := slices.IndexFunc(providers, func(p Provider) bool { return p.Name == name })
	if i < 0 {
		return Provider{}, fmt.Errorf("there are no logins at %q, but for %s", name, strings.Join(Names(), ", "))
	}
	return providers[i], nil
}

// Files are what the guest has in place of the login, where access is the placeholder of the access token. What they say
// of the user is what the program sends with its requests.
func (p Provider) Files(l Login, access string) []File { return p.files(l, access) }

// Answer is what a guest's own request to Token is answered with, as JSON.
func (p Provider) Answer(l Login, access string) ([]byte, error) {
	return json.Marshal(p.answer(l, access))
}
