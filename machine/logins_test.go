package machine

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/login"
	"github.com/sourcery-zone/sandbox/network/secret"
	"github.com/sourcery-zone/sandbox/network/upstream"
)

func TestALoginGoesToItsProviderOnly(t *testing.T) {
	const good = "CLAUDE_LOGIN=login:claude@api.anthropic.com,header=Authorization"
	c := testConfig("a")
	c.Network = network.ModePublic
	for _, text := range []string{
		"CLAUDE_LOGIN=login:claude@api.example.com,header=Authorization",
		"CLAUDE_LOGIN=login:claude@api.anthropic.com,api.example.com,header=Authorization",
		"CLAUDE_LOGIN=login:claude@api.anthropic.com:8443,header=Authorization",
		"CLAUDE_LOGIN=login:claude@api.anthropic.com",
		"CLAUDE_LOGIN=login:claude@api.anthropic.com,header=X-Other",
		"CLAUDE_LOGIN=login:claude@api.anthropic.com,header=Authorization,query",
		"CLAUDE_LOGIN=login:claude@api.anthropic.com,header=Authorization,body",
		"GEMINI_LOGIN=login:gemini@cloudcode-pa.googleapis.com,oauth2.googleapis.com,header=Authorization",
	} {
		c.Secrets = []string{text}
		if err := c.validateSecrets(); err == nil || !strings.Contains(err.Error(), "which goes to that provider only") {
			t.Errorf("%s: %v", text, err)
		}
	}
	c.Secrets = []string{good}
	if err := c.validateSecrets(); err != nil {
		t.Error(err)
	}
	c.Secrets = append(c.Secrets, strings.Replace(good, "CLAUDE", "OTHER", 1)) // for which there is one file in the guest
	if err := c.validateSecrets(); err == nil || !strings.Contains(err.Error(), "as another one is") {
		t.Errorf("a login twice: %v", err)
	}
}

func TestASandboxHasPlaceholdersOfALogin(t *testing.T) {
	h := testHost(t)
	c := testConfig("a")
	c.Network, c.Secrets = network.ModePublic, []string{"GEMINI_LOGIN=login:gemini@cloudcode-pa.googleapis.com,oauth2.googleapis.com/tokeninfo,header=Authorization"}
	s, err := h.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Secrets(t.Context()); err == nil || !strings.Contains(err.Error(), "no login at gemini") || len(remedy.Of(err)) != 1 {
		t.Errorf("without a login: %v", err)
	}
	access, errAccess := secret.NewValue("ya29.real-access-token-0123456789")
	refresh, errRefresh := secret.NewValue("real-refresh-token")
	if errAccess != nil || errRefresh != nil {
		t.Fatal(errAccess, errRefresh)
	}
	l := login.Login{Access: access, Refresh: refresh, Expires: time.Now().Add(time.Hour), Since: time.Now()}
	if err := h.Keeper(upstream.Settings{}).Store.Put(t.Context(), "gemini", l); err != nil {
		t.Fatal(err)
	}
	secrets, err := s.Secrets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The supervisor gets it by itself, each time that it is another one.
	names, files, err := s.openSecrets(c, secrets)
	if err != nil || len(names) != 0 || len(files) != 0 {
		t.Errorf("the supervisor inherits %q, %v", names, err)
	}
	if c, err = s.Config(); err != nil {
		t.Fatal(err)
	}
	placeholder := c.Placeholders["GEMINI_LOGIN"]
	variables, err := c.Variables()
	if err != nil || !strings.HasPrefix(placeholder, "ya29.") || strings.Contains(placeholder, "real") || !slices.Contains(variables, "GEMINI_LOGIN="+placeholder) || !slices.Contains(variables, "GOOGLE_GENAI_USE_GCA=true") {
		t.Errorf("the guest has %q, %v", variables, err)
	}
	logins, err := c.Logins()
	if err != nil || len(logins) != 1 {
		t.Fatal(logins, err)
	}
	for _, f := range logins[0].Files(l, placeholder) {
		if text := string(f.Content); !strings.Contains(text, placeholder) || strings.Contains(text, "real-") {
			t.Errorf("%s has %s", f.Path, text)
		}
	}
}
