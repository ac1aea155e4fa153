package login

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/internal/remedy"
)

const (
	// margin is how long an access token is good for at least when somebody gets it.
	margin = 5 * time.Minute

	// patience is how long a provider may take to answer. A request is not given up before: it may have used the
	// refresh token up.
	patience = 30 * time.Second

	// defaultLife is that of a token whose provider does not say it.
	defaultLife = time.Hour

	maxAnswer = 256 << 10 // bytes
)

// Keeper gives access tokens, and gets others from the providers in time.
type Keeper struct {
	Store  Store
	Client *http.Client     // by which providers are asked
	Now    func() time.Time // nil: time.Now
}

func (k Keeper) now() time.Time {
	if k.Now != nil {
		return k.Now().Round(0)
	}
	return time.Now().Round(0) // the wall clock's: while the machine sleeps, tokens expire
}

// Login returns the login with an access token that is good for some minutes, for which it asks the provider if need be. A
// provider that does not answer is an error; the login is returned all the same as long as its token has not expired. If
// there is no login, the error is os.ErrNotExist, and an *EndedError if the provider gives nothing for it any more.
func (k Keeper) Login(ctx context.Context, name string) (Login, error) {
	p, err := Find(name)
	if err != nil {
		return Login{}, err
	}
	l, err := k.Store.Get(name)
	if err != nil {
		return Login{}, err
	}
	if l.Ended != "" {
		return Login{}, l.ended(name)
	}
	if k.fresh(l) {
		return l, nil
	}
	var failed error
	err = k.Store.change(ctx, name, func(c *change) error {
		if l, err = k.Store.Get(name); err != nil || k.fresh(l) { // somebody else may have asked
			return err
		}
		if err := c.prepare(); err != nil {
			return err
		}
		renewed, err := k.renew(context.WithoutCancel(ctx), p, l)
		if refused, ok := errors.AsType[*refusedError](err); ok {
			renewed = l
			renewed.Ended = refused.Error()
		} else if err != nil {
			failed = err
			return nil
		}
		if err := c.write(renewed); err != nil {
			return err
		}
		l = renewed
		return nil
	})
	if err = errors.Join(err, failed); err == nil {
		err = l.ended(name)
	}
	if err != nil && (l.Ended != "" || !k.now().Before(l.Expires)) {
		return Login{}, err
	}
	return l, err
}

// fresh tells whether the provider need not be asked, or would say nothing new.
func (k Keeper) fresh(l Login) bool { return l.Ended != "" || k.now().Add(margin).Before(l.Expires) }

func (l Login) ended(name string) error {
	if l.Ended == "" {
		return nil
	}
	return remedy.Add(&EndedError{name, l.Ended}, remedy.LogIn, name)
}

// renew asks the provider for new tokens.
func (k Keeper) renew(ctx context.Context, p Provider, l Login) (Login, error) {
	values := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {l.Refresh.Reveal()}, "client_id": {p.ClientID}}
	return k.ask(ctx, p, values, p.JSONRefresh, l)
}

// answer is a token endpoint's (RFC 6749, 5.1).
type answer struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	ID      string `json:"id_token"`
	Life    int64  `json:"expires_in"` // seconds
	Scope   string `json:"scope"`
}

// ask sends a request to a token endpoint, and returns l with what it answers. No error has a token in it.
func (k Keeper) ask(ctx context.Context, p Provider, values url.Values, inJSON bool, l Login) (Login, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if p.ClientSecret != "" {
		values.Set("client_secret", p.ClientSecret)
	}
	kind, body := "application/x-www-form-urlencoded", []byte(values.Encode())
	if inJSON {
		flat := map[string]string{}
		for name := range values {
			flat[name] = values.Get(name)
		}
		kind, body = "application/json", asJSON(flat)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.Token, bytes.NewReader(body))
	if err != nil {
		return Login{}, err
	}
	r.GetBody = nil // it is sent once: what it has is good for once
	r.Header.Set("Content-Type", kind)
	r.Header.Set("Accept", "application/json")
	if p.UserAgent != "" {
		r.Header.Set("User-Agent", p.UserAgent)
	}
	client := *k.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	response, err := client.Do(r)
	if err != nil {
		return Login{}, fmt.Errorf("asking %s for an access token: %w", p.Name, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return Login{}, fmt.Errorf("asking %s for an access token: %w", p.Name, err)
	}
	if response.StatusCode != http.StatusOK {
		return Login{}, refusal(p, response, text)
	}
	var a answer
	if err := json.Unmarshal(text, &a); err != nil {
		return Login{}, fmt.Errorf("asking %s for an access token: it answers with what is none", p.Name)
	}
	if l, err = k.with(l, a); err != nil {
		return Login{}, fmt.Errorf("what %s answers is no login: %w", p.Name, err)
	}
	return l, nil
}

// with is l with the tokens of an answer.
func (k Keeper) with(l Login, a answer) (_ Login, err error) {
	if a.Refresh == "" {
		a.Refresh = l.Refresh.Reveal() // it stays good
	}
	l.Expires = time.Time{}
	if l, err = newLogin(tokens{a.Access, a.Refresh, a.ID}, l); err != nil {
		return Login{}, err
	}
	if a.Life > 0 {
		l.Expires = k.now().Add(time.Duration(a.Life) * time.Second)
	}
	if l.Expires.IsZero() {
		l.Expires = k.now().Add(defaultLife)
	}
	if a.Scope != "" {
		l.Scopes = strings.Fields(a.Scope)
	}
	l.Renewed, l.Ended = k.now(), ""
	if l.Since.IsZero() {
		l.Since = l.Renewed
	}
	return l, nil
}

// refusedError is a provider's word that what it was sent is good for nothing.
type refusedError struct{ provider, code string }

func (e *refusedError) Error() string { return fmt.Sprintf("%s says %s", e.provider, e.code) }

// spent are the words for refresh tokens that are worth nothing any more: RFC 6749's, and those of OpenAI.
var spent = []string{"invalid_grant", "refresh_token_expired", "refresh_token_reused", "refresh_token_invalidated"}

// refusal is the error of an answer. What the provider says besides its code is left out: it may repeat what it was sent.
func refusal(p Provider, r *http.Response, text []byte) error {
	if r.StatusCode == http.StatusBadRequest || r.StatusCode == http.StatusUnauthorized {
		if code := errorCode(r, text); slices.Contains(spent, code) {
			return &refusedError{p.Name, code}
		}
	}
	return fmt.Errorf("asking %s for an access token: it answers with status %d", p.Name, r.StatusCode)
}

// errorCode is what a token endpoint calls its error: as RFC 6749, 5.2 has it, or within an object.
func errorCode(r *http.Response, text []byte) string {
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		return ""
	}
	var plain struct{ Error string }
	if json.Unmarshal(text, &plain) == nil {
		return plain.Error
	}
	var nested struct{ Error struct{ Code, Type string } }
	_ = json.Unmarshal(text, &nested)
	if slices.Contains(spent, nested.Error.Code) {
		return nested.Error.Code
	}
	return nested.Error.Type
}
