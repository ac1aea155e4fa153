package login

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// Attempt is an attempt of the user's to log in, by a code that the provider gives in the browser (RFC 6749, 4.1), and which
// is worth nothing to whoever has not begun the attempt (RFC 7636).
type Attempt struct {
	Address string // that the user is to open in a browser

	keeper   Keeper
	provider Provider
	redirect string
	state    string
	verifier string
	loopback net.Listener // where the browser comes back to; nil if the provider shows the code
}

// Begin begins an attempt. If the browser is to come back to this machine, it listens there. The caller closes it.
func (k Keeper) Begin(p Provider) (*Attempt, error) {
	a := &Attempt{keeper: k, provider: p, redirect: p.Redirect, state: random(), verifier: random()}
	redirect, err := url.Parse(p.Redirect)
	if err != nil {
		return nil, err
	}
	if redirect.Scheme == "http" {
		if a.loopback, err = net.Listen("tcp4", net.JoinHostPort("127.0.0.1", redirect.Port())); err != nil {
			return nil, fmt.Errorf("%s sends the browser back to port %s of this machine, which cannot be had: %w", p.Name, redirect.Port(), err)
		}
		_, port, err := net.SplitHostPort(a.loopback.Addr().String())
		if err != nil {
			return nil, errors.Join(err, a.Close())
		}
		redirect.Host = net.JoinHostPort(redirect.Hostname(), port)
		a.redirect = redirect.String()
	}
	sum := sha256.Sum256([]byte(a.verifier))
	query := url.Values{
		"response_type": {"code"}, "client_id": {p.ClientID}, "redirect_uri": {a.redirect}, "scope": {strings.Join(p.Scopes, " ")}, "state": {a.state},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	for name, value := range p.Parameters {
		query.Set(name, value)
	}
	a.Address = p.Authorize + "?" + query.Encode()
	return a, nil
}

// Close ends the attempt.
func (a *Attempt) Close() error {
	if a.loopback == nil {
		return nil
	}
	return a.loopback.Close()
}

// random is text of 256 bits that fits into a URL.
func random() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Shown tells whether the provider shows the code, which is to be pasted, in place of sending the browser back.
func (a *Attempt) Shown() bool { return a.loopback == nil }

// Paste ends the attempt with what the provider has shown: the code and the state, with # between them.
func (a *Attempt) Paste(ctx context.Context, text string) (Login, error) {
	code, state, ok := strings.Cut(strings.TrimSpace(text), "#")
	if !ok || code == "" {
		return Login{}, errors.New("this is not the whole code that the page shows, in which there is a #: copy it again")
	}
	if !a.began(state) {
		return Login{}, errors.New("this code is of another attempt to log in: use the address that was shown just now")
	}
	return a.exchange(ctx, code)
}

func (a *Attempt) began(state string) bool {
	return subtle.ConstantTimeCompare([]byte(state), []byte(a.state)) == 1
}

// Await waits until the browser comes back.
func (a *Attempt) Await(ctx context.Context) (Login, error) {
	type result struct {
		login Login
		err   error
	}
	results := make(chan result, 1)
	var once sync.Once
	server := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		// Any page of the web can have a browser come here.
		if here, err := url.Parse(a.redirect); err != nil || r.Method != http.MethodGet || r.Host != here.Host || r.URL.Path != here.Path || !a.began(query.Get("state")) {
			http.Error(w, "This is not what the login is waiting for.", http.StatusBadRequest)
			return
		}
		once.Do(func() {
			var l Login
			err := fmt.Errorf("%s did not let you in, or you did not consent: try again", a.provider.Name)
			if code := query.Get("code"); code != "" {
				l, err = a.exchange(ctx, code)
			}
			text := "You are logged in, and can close this page."
			if err != nil {
				text = "It did not work: the terminal says why."
			}
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = io.WriteString(w, text+"\n")
			results <- result{l, err}
		})
	})}
	go func() { _ = server.Serve(a.loopback) }()
	select {
	case r := <-results:
		_ = server.Shutdown(ctx) // after the browser has the page, if it takes it
		return r.login, r.err
	case <-ctx.Done():
		return Login{}, errors.Join(context.Cause(ctx), server.Close())
	}
}

// exchange has the code become a login.
func (a *Attempt) exchange(ctx context.Context, code string) (Login, error) {
	values := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {a.redirect}, "client_id": {a.provider.ClientID}, "code_verifier": {a.verifier}}
	if a.provider.JSONCode {
		values.Set("state", a.state) // which it asks for besides what is in RFC 6749
	}
	return a.keeper.ask(ctx, a.provider, values, a.provider.JSONCode, Login{})
}
