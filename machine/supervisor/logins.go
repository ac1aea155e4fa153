package supervisor

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/network/login"
	"github.com/sourcery-zone/sandbox/network/secret"
)

// logins are the user's that the guest uses, with their access tokens as they are now. They are asked for here, as the network's
// process has no files, and are put into requests there.
type logins struct {
	end    context.CancelFunc // nil before they are kept
	ended  sync.WaitGroup
	mu     sync.Mutex
	tokens map[string]*os.File // by the names of their secrets, in memory
	lost   map[string]bool     // names of those that were revoked
}

// openLogins gets the access tokens with which the guest begins. One that there is not is no reason not to start: its
// requests are refused until the user has logged in again.
func (v *supervisor) openLogins(ctx context.Context) error {
	all, err := v.config.Logins()
	v.logins.tokens, v.logins.lost = map[string]*os.File{}, map[string]bool{}
	for _, l := range all {
		if slices.Contains(v.config.Revoked, l.Secret) {
			v.logins.lost[l.Secret] = true
			continue
		}
		is, err := v.host.Keeper(v.upstream).Login(ctx, l.Provider.Name)
		if err != nil {
			v.log.Warn("a login cannot be renewed", "provider", l.Provider.Name, "err", err)
		}
		if !is.Access.IsZero() {
			if v.logins.tokens[l.Secret], err = is.Access.File(); err != nil {
				return err
			}
		}
	}
	return err
}

// loginAnswers are what the guest's own requests for tokens are answered with.
func (v *supervisor) loginAnswers() (map[string][]byte, error) {
	all, err := v.config.Logins()
	answers := map[string][]byte{}
	for _, l := range all {
		is, placeholder := v.loginFor(l)
		if placeholder == "" { // it was revoked before the guest had anything of it
			continue
		}
		answer, bad := l.Provider.Answer(is, placeholder)
		answers[l.Provider.Token], err = answer, errors.Join(err, bad)
	}
	return answers, err
}

// loginFiles are by what the guest's programs know of its logins.
func (v *supervisor) loginFiles() (files []agent.File) {
	all, err := v.config.Logins()
	if err != nil {
		v.log.Error("the guest does not know of its logins", "err", err)
	}
	for _, l := range all {
		if is, placeholder := v.loginFor(l); placeholder != "" && !is.Access.IsZero() {
			files = append(files, l.Files(is, placeholder)...)
		}
	}
	return files
}

// loginFor is a login as it is stored, which is of use to the guest without its tokens, and what the guest has in their place.
func (v *supervisor) loginFor(l machine.Login) (is login.Login, placeholder string) {
	is, err := v.host.Keeper(v.upstream).Store.Get(l.Provider.Name)
	if err != nil {
		v.log.Warn("a login cannot be read", "provider", l.Provider.Name, "err", err)
	}
	return is, v.config.Placeholders[l.Secret]
}

// keepLogins gives the network's process each new access token, until closeLogins.
func (v *supervisor) keepLogins(ctx context.Context) error {
	all, err := v.config.Logins()
	ctx, v.logins.end = context.WithCancel(context.WithoutCancel(ctx))
	for _, l := range all {
		if v.logins.lost[l.Secret] {
			continue
		}
		v.logins.ended.Go(func() {
			v.host.Keeper(v.upstream).Keep(ctx, l.Provider.Name, login.LookPause, func(token secret.Value, err error) {
				if err != nil {
					v.log.Warn("a login cannot be renewed", "provider", l.Provider.Name, "err", err)
				}
				if err := v.setToken(l.Secret, token); err != nil {
					v.log.Error("the guest's requests have an access token of before", "provider", l.Provider.Name, "err", err)
				}
			})
		})
	}
	return err
}

// setToken gives a login's secret another value, or none.
func (v *supervisor) setToken(name string, token secret.Value) (err error) {
	v.logins.mu.Lock()
	defer v.logins.mu.Unlock()
	if v.logins.lost[name] {
		return nil
	}
	var f *os.File
	if !token.IsZero() {
		if f, err = token.File(); err != nil {
			return err
		}
	}
	return v.replaceToken(name, f)
}

// loseToken takes a login's token away for good.
func (v *supervisor) loseToken(name string) error {
	v.logins.mu.Lock()
	defer v.logins.mu.Unlock()
	v.logins.lost[name] = true
	return v.replaceToken(name, nil)
}

// replaceToken takes over the file. The caller holds the lock.
func (v *supervisor) replaceToken(name string, f *os.File) error {
	if err := v.gateway.SetSecret(name, f); err != nil {
		if f != nil {
			f.Close()
		}
		return err
	}
	if old := v.logins.tokens[name]; old != nil {
		old.Close()
	}
	v.logins.tokens[name] = f
	return nil
}

// closeLogins ends what keeps them, after the answer of a provider that is being asked: it may be all that is good.
func (v *supervisor) closeLogins() {
	if v.logins.end != nil {
		v.logins.end()
	}
	v.logins.ended.Wait()
}

// forgetTokens is for when the network is gone.
func (v *supervisor) forgetTokens() {
	for _, f := range v.logins.tokens {
		if f != nil {
			f.Close()
		}
	}
	v.logins.tokens = nil
}
