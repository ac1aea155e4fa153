package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/network/aws"
	"github.com/sourcery-zone/sandbox/network/login"
	"github.com/sourcery-zone/sandbox/network/secret"
	"github.com/sourcery-zone/sandbox/network/upstream"
)

// Keeper keeps the user's logins fresh, and reaches their providers by way of the proxies.
func (h *Host) Keeper(proxies upstream.Settings) login.Keeper {
	client := &http.Client{Transport: &http.Transport{DialContext: dialBy(proxies), ForceAttemptHTTP2: true, DisableKeepAlives: true}}
	return login.Keeper{Store: login.Store{Dir: h.Dirs.Logins()}, Client: client}
}

// AWS gets the key of a profile of the user's, and reaches AWS by way of the proxies.
func (h *Host) AWS(ctx context.Context, proxies upstream.Settings, profile string) (aws.Credentials, error) {
	return aws.Profile(ctx, dialBy(proxies), profile)
}

// dialBy dials by way of the proxies.
func dialBy(proxies upstream.Settings) func(ctx context.Context, network, address string) (net.Conn, error) {
	by, err := upstream.New(proxies)
	if err != nil {
		by = nil // as for the guest, of which the user is told
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, text, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return nil, err
		}
		if proxy := by.For(host, uint16(port)); proxy != nil {
			return proxy.Dial(ctx, host, uint16(port))
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
}

// accessToken gets that of a login for a sandbox that is to start.
func (h *Host) accessToken(ctx context.Context, provider string) (secret.Value, error) {
	l, err := h.Keeper(upstream.FromEnvironment(os.Getenv)).Login(ctx, provider)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return secret.Value{}, remedy.Add(fmt.Errorf("you have no login at %s", provider), remedy.LogIn, provider)
	case !l.Access.IsZero(): // also if it could not be renewed just now
		return l.Access, nil
	}
	return secret.Value{}, err
}

// Sources are where the user's secrets come from.
func (h *Host) Sources() secret.Sources {
	ofAWS := func(ctx context.Context, profile string) (aws.Credentials, error) {
		return h.AWS(ctx, upstream.FromEnvironment(os.Getenv), profile)
	}
	return secret.Sources{Getenv: os.Getenv, Store: secret.Store{Dir: h.Dirs.Secrets()}, Login: h.accessToken, AWS: ofAWS}
}

// Login is one of the user's that a sandbox uses.
type Login struct {
	Secret   string // the name of the secret that is its access token
	Provider login.Provider
}

// Logins are those that the sandbox uses, but for those whose secrets were taken away, and which no guest had before.
func (a Access) Logins() (logins []Login, err error) {
	specs, err := a.SecretSpecs()
	for _, spec := range specs {
		if spec.Source.Kind != secret.FromLogin {
			continue
		}
		p, unknown := login.Find(spec.Source.Of)
		if unknown != nil {
			return nil, unknown
		}
		logins = append(logins, Login{spec.Name, p})
	}
	return logins, err
}

// validateLogins refuses to give a login's token to others than its provider.
func validateLogins(specs []secret.Spec) error {
	var errs []error
	named := map[string]bool{}
	for _, spec := range specs {
		if spec.Source.Kind != secret.FromLogin {
			continue
		}
		p, err := login.Find(spec.Source.Of)
		if err != nil {
			errs = append(errs, fmt.Errorf("the secret %s: %w", spec.Name, err))
			continue
		}
		whole := spec.Name + "=" + string(secret.FromLogin) + ":" + p.Name + "@" + p.Places
		switch {
		case spec.String() != whole:
			errs = append(errs, fmt.Errorf("the secret %s is the login at %s, which goes to that provider only: write it %s", spec.Name, p.Name, whole))
		case named[p.Name]:
			errs = append(errs, fmt.Errorf("the secret %s is the login at %s, as another one is: leave one of them out", spec.Name, p.Name))
		}
		named[p.Name] = true
	}
	return errors.Join(errs...)
}

// Files are those of the guest's home by which its programs know of the login, with nothing secret in them.
func (l Login) Files(of login.Login, placeholder string) (files []agent.File) {
	for _, f := range l.Provider.Files(of, placeholder) {
		files = append(files, agent.File{Path: f.Path, Content: f.Content, Ours: f.Ours})
	}
	return files
}

// loginVariables are those by which the guest's programs use its logins.
func (a Access) loginVariables() (variables []string, err error) {
	logins, err := a.Logins()
	for _, l := range logins {
		variables = append(variables, l.Provider.Variables...)
	}
	return variables, err
}
