package login

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// consent is a user who has opened the address in a browser and consented: it returns the query with which that is led back.
func consent(t *testing.T, a *Attempt) (query url.Values, redirect string) {
	t.Helper()
	u, err := url.Parse(a.Address)
	if err != nil {
		t.Fatal(err)
	}
	asked := u.Query()
	sum := sha256.Sum256([]byte(a.verifier))
	if asked.Get("response_type") != "code" || asked.Get("code_challenge_method") != "S256" || asked.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(sum[:]) || len(a.verifier) < 43 || len(asked.Get("state")) < 43 {
		t.Errorf("the address is %s", a.Address)
	}
	if strings.Contains(a.Address, a.verifier) {
		t.Error("the address tells what only who asks for the token is to know")
	}
	return url.Values{"code": {"the-code"}, "state": {asked.Get("state")}}, asked.Get("redirect_uri")
}

// giveTokens has the provider's endpoint give tokens for the attempt's code, and for nothing else.
func giveTokens(t *testing.T, p *provider, a *Attempt) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		body := p.bodies[len(p.bodies)-1]
		p.mu.Unlock()
		var sent map[string]string
		if json.Unmarshal([]byte(body), &sent) != nil {
			values, _ := url.ParseQuery(body)
			sent = map[string]string{}
			for name := range values {
				sent[name] = values.Get(name)
			}
		}
		w.Header().Set("Content-Type", "application/json")
		if sent["grant_type"] != "authorization_code" || sent["code"] != "the-code" || sent["code_verifier"] != a.verifier || sent["redirect_uri"] != a.redirect || sent["client_id"] != a.provider.ClientID {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_, _ = io.WriteString(w, `{"access_token":"access-1","refresh_token":"refresh-1","expires_in":3600}`)
	}
}

func TestTheUserLogsInByABrowser(t *testing.T) {
	for _, name := range []string{"codex", "gemini"} {
		server := newProvider(t, "")
		k := Keeper{Store: Store{filepath.Join(t.TempDir(), "logins")}, Client: server.client()}
		p := mustFind(t, name)
		p.Redirect = strings.Replace(p.Redirect, ":1455", ":0", 1) // which somebody else may have here
		a, err := k.Begin(p)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { a.Close() })
		giveTokens(t, server, a)
		query, redirect := consent(t, a)
		if !strings.HasPrefix(a.loopback.Addr().String(), "127.0.0.1:") || a.Shown() {
			t.Errorf("%s: it listens at %s", name, a.loopback.Addr())
		}
		done := make(chan error, 1)
		go func() {
			l, err := a.Await(t.Context())
			if err == nil && (l.Access.Reveal() != "access-1" || l.Refresh.Reveal() != "refresh-1" || l.Since.IsZero() || time.Until(l.Expires) > time.Hour) {
				err = fmt.Errorf("the login is %+v", l)
			}
			done <- err
		}()
		// A page of the web may have the browser come here, too: it does not know the state.
		visit := func(method, address, host string) int {
			t.Helper()
			address = strings.Replace(address, "localhost", "127.0.0.1", 1)
			r, err := http.NewRequest(method, address, nil)
			if err != nil {
				t.Fatal(err)
			}
			at, _ := url.Parse(redirect)
			if r.Host = at.Host; host != "" {
				r.Host = host
			}
			response, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			return response.StatusCode
		}
		good := redirect + "?" + query.Encode()
		for _, c := range [][3]string{
			{"GET", redirect + "?code=theirs&state=guessed", ""},
			{"GET", redirect + "?code=theirs", ""},
			{"GET", redirect + "?error=access_denied", ""},
			{"GET", strings.Replace(good, "callback", "other", 1), ""},
			{"POST", good, ""},
			{"GET", good, "rebound.example"},
		} {
			if status := visit(c[0], c[1], c[2]); status != http.StatusBadRequest {
				t.Errorf("%s: %v is answered %d", name, c, status)
			}
		}
		if n := server.count(); n != 0 {
			t.Errorf("%s: the provider was asked %d times", name, n)
		}
		if status := visit("GET", good, ""); status != http.StatusOK {
			t.Errorf("%s: the browser gets %d", name, status)
		}
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheUserPastesTheCode(t *testing.T) {
	server := newProvider(t, "")
	k := Keeper{Store: Store{filepath.Join(t.TempDir(), "logins")}, Client: server.client()}
	a, err := k.Begin(mustFind(t, "claude"))
	if err != nil {
		t.Fatal(err)
	}
	giveTokens(t, server, a)
	query, _ := consent(t, a)
	for _, text := range []string{"", "the-code", "#" + query.Get("state"), "the-code#guessed", "the-code#"} {
		if _, err := a.Paste(t.Context(), text); err == nil || strings.Contains(err.Error(), "the-code") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if n := server.count(); n != 0 {
		t.Errorf("the provider was asked %d times", n)
	}
	l, err := a.Paste(t.Context(), " the-code#"+query.Get("state")+"\n")
	if err != nil || l.Access.Reveal() != "access-1" {
		t.Errorf("%v, %v", l, err)
	}
}

// What a provider gives for a token is not masked if it is a key of its own.
func TestALoginThatCanMakeKeysIsNotMoved(t *testing.T) {
	file := filepath.Join(t.TempDir(), ".credentials.json")
	text := `{"claudeAiOauth":{"accessToken":"a","refreshToken":"r","expiresAt":4000000000000,"scopes":["org:create_api_key","user:inference"]}}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := Store{filepath.Join(t.TempDir(), "logins")}
	if err := s.Import(t.Context(), mustFind(t, "claude"), file); err == nil || !strings.Contains(err.Error(), "it may make keys") {
		t.Errorf("it was moved: %v", err)
	}
	if left, err := os.ReadFile(file); err != nil || string(left) != text {
		t.Errorf("left is %q, %v", left, err)
	}
	for _, name := range Names() {
		if strings.Contains(strings.Join(mustFind(t, name).Scopes, " "), "api_key") {
			t.Errorf("%s: a login of ours can make keys", name)
		}
	}
}

func TestAnImportMovesTheLoginAndNothingElse(t *testing.T) {
	token := func(claims string) string {
		part := base64.RawURLEncoding.EncodeToString
		return part([]byte(`{"alg":"RS256"}`)) + "." + part([]byte(claims)) + "." + part([]byte("signature"))
	}
	id := token(`{"email":"me@example.com","https://api.openai.com/auth":{"chatgpt_account_id":"acc","chatgpt_plan_type":"plus"}}`)
	access := token(`{"exp":4000000000}`)
	for name, c := range map[string]struct{ before, after, account, plan string }{
		"claude": {`{"claudeAiOauth":{"accessToken":"a","refreshToken":"r","expiresAt":4000000000000,"scopes":["s"],"subscriptionType":"max"},"mcpOAuth":{"x":1}}`, `{"mcpOAuth":{"x":1}}`, "", "max"},
		"codex":  {`{"auth_mode":"chatgpt","OPENAI_API_KEY":null,"tokens":{"id_token":"` + id + `","access_token":"` + access + `","refresh_token":"r","account_id":"acc"},"last_refresh":"2026-01-01T00:00:00Z"}`, "", "acc", "plus"},
		"gemini": {`{"access_token":"a","refresh_token":"r","scope":"s","token_type":"Bearer","id_token":"` + id + `","expiry_date":4000000000000}`, "", "", ""},
	} {
		p, home := mustFind(t, name), t.TempDir()
		file, err := p.OwnFile(func(variable string) string { return map[string]string{"HOME": home}[variable] })
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(c.before), 0o600); err != nil {
			t.Fatal(err)
		}
		s := Store{filepath.Join(t.TempDir(), "logins")}
		if err := s.Import(t.Context(), p, file); err != nil {
			t.Fatal(err)
		}
		l, err := s.Get(name)
		if err != nil || l.Refresh.Reveal() != "r" || l.Expires.Unix() != 4000000000 || l.Account != c.account || l.Plan != c.plan {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
		after, err := os.ReadFile(file)
		if c.after == "" && !os.IsNotExist(err) || c.after != "" && strings.Join(strings.Fields(string(after)), "") != c.after {
			t.Errorf("%s: left is %q, %v", name, after, err)
		}
		// What guests have says nothing of who the user is, and has no token.
		for _, f := range p.Files(l, "the-placeholder") {
			text := string(f.Content)
			for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune(`."`, r) }) {
				if plain, err := base64.RawURLEncoding.DecodeString(part); err == nil {
					text += string(plain)
				}
			}
			for _, real := range []string{`"a"`, `"r"`, access, id, "example.com", "signature"} {
				if strings.Contains(text, real) {
					t.Errorf("%s: %s has %q", name, f.Path, real)
				}
			}
		}
		if answer, err := p.Answer(l, "the-placeholder"); err != nil || !strings.Contains(string(answer), `"access_token":"the-placeholder"`) || strings.Contains(string(answer), `"r"`) {
			t.Errorf("%s: what a guest is answered is %s, %v", name, answer, err)
		}
		// Another one is not there to be moved, and one that others may have read is not.
		if err := s.Import(t.Context(), p, file); err == nil {
			t.Errorf("%s: it was moved twice", name)
		}
		if err := os.WriteFile(file, []byte(c.before), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := s.Import(t.Context(), p, file); err == nil || !strings.Contains(err.Error(), "others may read") {
			t.Errorf("%s: one that others may read: %v", name, err)
		}
	}
}
