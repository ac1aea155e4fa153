package supervisor

import (
	"slices"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/network/gateway"
	"github.com/sourcery-zone/sandbox/network/secret"
)

// networkSecrets are the secrets as the network is told of them: with files that nobody has read here. One that was
// revoked has none, so that requests with its placeholder are refused, and by name.
func (v *supervisor) networkSecrets() (secrets []gateway.Secret, err error) {
	specs, err := v.config.SecretSpecs()
	for _, spec := range specs {
		if v.config.Placeholders[spec.Name] == "" {
			continue // it was revoked before the guest had anything of it
		}
		value := v.values.files[spec.Name]
		if slices.Contains(v.config.Revoked, spec.Name) {
			value = nil
		}
		secrets = append(secrets, gateway.Secret{Spec: spec.String(), Placeholder: v.config.Placeholders[spec.Name], Value: value})
	}
	return secrets, err
}

// revokeSecret takes a secret away from the guest.
func (v *supervisor) revokeSecret(name string) error {
	if !v.transition.TryLock() {
		return errTransition
	}
	defer v.transition.Unlock()
	if st := v.currentState(); st.Status != machine.StatusRunning && st.Status != machine.StatusPaused {
		return v.s.NotRunning(st)
	}
	c, err := v.config.RevokeSecret(name)
	if err != nil {
		return err
	}
	v.values.mu.Lock()
	defer v.values.mu.Unlock()
	// First for good: a start that comes in between does not give it back, nor does a source that is being asked.
	if err := v.record(func(current *machine.Config) { current.Revoked = c.Revoked }); err != nil {
		return err
	}
	return v.values.set(name, secret.Value{})
}
