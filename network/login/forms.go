package login

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/network/secret"
)

// The files of the providers' programs, and those that guests have in their place.

// claudeFile is ~/.claude/.credentials.json, of which other members are of no interest.
type claudeFile struct {
	OAuth struct {
		AccessToken      string   `json:"accessToken"`
		RefreshToken     string   `json:"refreshToken"`
		ExpiresAt        int64    `json:"expiresAt"` // milliseconds
		Scopes           []string `json:"scopes"`
		SubscriptionType string   `json:"subscriptionType,omitempty"`
	} `json:"claudeAiOauth"`
}

func readClaude(text []byte) (Login, error) {
	var f claudeFile
	if err := json.Unmarshal(text, &f); err != nil {
		return Login{}, errors.New("it is not the JSON that it should be")
	}
	o := f.OAuth
	if slices.Contains(o.Scopes, "org:create_api_key") {
		return Login{}, errors.New("it may make keys for the API, as guests could then, whom nothing keeps from having these: log in anew")
	}
	return newLogin(tokens{Access: o.AccessToken, Refresh: o.RefreshToken}, Login{Expires: time.UnixMilli(o.ExpiresAt), Scopes: o.Scopes, Plan: o.SubscriptionType})
}

func claudeFiles(l Login, access string) []File {
	var f claudeFile
	o := &f.OAuth
	o.AccessToken, o.RefreshToken, o.ExpiresAt = access, "sk-ant-ort01-"+refreshPlaceholder, far*1000
	o.Scopes, o.SubscriptionType = l.Scopes, l.Plan
	return []File{
		// The program keeps other logins in it, of MCP servers.
		{Path: ".claude/.credentials.json", Content: asJSON(f)},
		// Without which it asks how it is to look, and for a login, before anything else.
		{Path: ".claude.json", Content: asJSON(map[string]any{"hasCompletedOnboarding": true})},
	}
}

func claudeAnswer(l Login, access string) any {
	return map[string]any{
		"token_type": "Bearer", "access_token": access, "refresh_token": "sk-ant-ort01-" + refreshPlaceholder,
		"expires_in": farIn, "scope": strings.Join(l.Scopes, " "),
	}
}

// codexFile is auth.json in CODEX_HOME.
type codexFile struct {
	AuthMode string  `json:"auth_mode"`
	APIKey   *string `json:"OPENAI_API_KEY"`
	Tokens   struct {
		ID      string `json:"id_token"`
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
		Account string `json:"account_id"`
	} `json:"tokens"`
	LastRefresh time.Time `json:"last_refresh"`
}

// openAIClaims are those of OpenAI's tokens that its program looks at.
type openAIClaims struct {
	Expires int64 `json:"exp"`
	Auth    struct {
		Account string `json:"chatgpt_account_id,omitempty"`
		Plan    string `json:"chatgpt_plan_type,omitempty"`
	} `json:"https://api.openai.com/auth"`
}

func readCodex(text []byte) (Login, error) {
	var f codexFile
	if err := json.Unmarshal(text, &f); err != nil {
		return Login{}, errors.New("it is not the JSON that it should be")
	}
	return newLogin(tokens{Access: f.Tokens.Access, Refresh: f.Tokens.Refresh, ID: f.Tokens.ID}, Login{Account: f.Tokens.Account})
}

func codexFiles(l Login, access string) []File {
	f := codexFile{AuthMode: "chatgpt", LastRefresh: time.Unix(far, 0).UTC()}
	f.Tokens.ID, f.Tokens.Access, f.Tokens.Refresh, f.Tokens.Account = codexID(l), access, refreshPlaceholder, l.Account
	// Another account's login needs another file, as the account is in it.
	return []File{{Path: ".codex/auth.json", Content: asJSON(f), Ours: access}}
}

// codexID is a token by which nobody is known: it has the account that requests name, and neither name nor address.
func codexID(l Login) string {
	c := openAIClaims{Expires: far}
	c.Auth.Account, c.Auth.Plan = l.Account, l.Plan
	part := func(v any) string { return base64.RawURLEncoding.EncodeToString(asJSON(v)) }
	return part(map[string]string{"alg": "none", "typ": "JWT"}) + "." + part(c) + "." + base64.RawURLEncoding.EncodeToString([]byte("not signed"))
}

func codexAnswer(l Login, access string) any {
	return map[string]any{"token_type": "Bearer", "access_token": access, "refresh_token": refreshPlaceholder, "id_token": codexID(l), "expires_in": farIn}
}

// geminiFile is ~/.gemini/oauth_creds.json.
type geminiFile struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	Type    string `json:"token_type"`
	Scope   string `json:"scope"`
	Expiry  int64  `json:"expiry_date"` // milliseconds
}

func readGemini(text []byte) (Login, error) {
	var f geminiFile
	if err := json.Unmarshal(text, &f); err != nil {
		return Login{}, errors.New("it is not the JSON that it should be")
	}
	return newLogin(tokens{Access: f.Access, Refresh: f.Refresh}, Login{Expires: time.UnixMilli(f.Expiry), Scopes: strings.Fields(f.Scope)})
}

func geminiFiles(l Login, access string) []File {
	f := geminiFile{Access: access, Refresh: refreshPlaceholder, Type: "Bearer", Scope: strings.Join(l.Scopes, " "), Expiry: far * 1000}
	return []File{{Path: ".gemini/oauth_creds.json", Content: asJSON(f), Ours: access}}
}

func geminiAnswer(l Login, access string) any {
	return map[string]any{"token_type": "Bearer", "access_token": access, "expires_in": farIn, "scope": strings.Join(l.Scopes, " ")}
}

// asJSON is of values that have a JSON.
func asJSON(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

// tokens are what a provider gives.
type tokens struct{ Access, Refresh, ID string }

// newLogin is a login with these tokens, and what they say of themselves where l does not.
func newLogin(t tokens, l Login) (_ Login, err error) {
	if l.Access, err = secret.NewValue(t.Access); err != nil {
		return Login{}, fmt.Errorf("its access token cannot be one: %w", err)
	}
	if l.Refresh, err = secret.NewValue(t.Refresh); err != nil {
		return Login{}, fmt.Errorf("its refresh token cannot be one: %w", err)
	}
	l.learn(t)
	return l, nil
}

// learn takes from tokens what they say of themselves, if they are OpenAI's, and is not known.
func (l *Login) learn(t tokens) {
	id, access := claimsOf(t.ID), claimsOf(t.Access)
	for _, c := range []openAIClaims{id, access} {
		if l.Account == "" {
			l.Account = c.Auth.Account
		}
		if c.Auth.Plan != "" {
			l.Plan = c.Auth.Plan
		}
	}
	if l.Expires.IsZero() && access.Expires != 0 {
		l.Expires = time.Unix(access.Expires, 0)
	}
}

// claimsOf are the claims of a JSON Web Token, of which nothing is verified: it came from the provider. There are none in
// other text.
func claimsOf(token string) (c openAIClaims) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return c
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		_ = json.Unmarshal(text, &c)
	}
	return c
}
