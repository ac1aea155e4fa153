package supervisor

import (
	"errors"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/network/login"
)

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
