package machine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/aws"
	"github.com/sourcery-zone/sandbox/network/gateway"
	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/sourcery-zone/sandbox/network/secret"
	"github.com/sourcery-zone/sandbox/network/stack"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// HasSecrets tells whether there are any, also those of git.
func (a Access) HasSecrets() bool { return len(a.Secrets)+len(a.GitCredentials) > 0 }

// SecretSpecs are the secrets, read, and after them those of git, in the order of GitCredentials.
func (a Access) SecretSpecs() ([]secret.Spec, error) {
	var specs []secret.Spec
	var errs []error
	named := map[string]bool{}
	add := func(spec secret.Spec, err error) {
		for _, name := range spec.Variables() {
			if err == nil && named[name] {
				err = fmt.Errorf("two secrets are to be the variable %s: give it one source, and all its hosts", name)
			}
			named[name] = true
		}
		specs, errs = append(specs, spec), append(errs, err)
	}
	for _, text := range a.Secrets {
		add(secret.Parse(text))
	}
	repositories, err := a.gitRepositories()
	for _, r := range repositories {
		add(r.secret, nil)
	}
	return specs, errors.Join(append(errs, err)...)
}

func (c Config) validateSecrets() error {
	switch {
	case !c.HasSecrets():
		return nil
	case !c.Network.Judged():
		return remedy.Add(fmt.Errorf("the network mode %s puts no secrets into requests", c.Network), remedy.Set, "net", string(network.ModePublic))
	case len(c.Secrets)+len(c.GitCredentials) > gateway.MaxSecrets:
		return fmt.Errorf("%d secrets are too many: a guest has at most %d", len(c.Secrets)+len(c.GitCredentials), gateway.MaxSecrets)
	}
	specs, err := c.SecretSpecs()
	return errors.Join(err, validateLogins(specs))
}

// checkSecretFiles finds secrets that the guest could read itself, or exchange for another file of the user's.
func (c Config) checkSecretFiles() error {
	specs, err := c.SecretSpecs()
	if err != nil {
		return nil // as Validate says
	}
	var errs []error
	for _, spec := range specs {
		for _, path := range secretFiles(spec) {
			paths := []string{filepath.Clean(path)}
			if resolved, err := filepath.EvalSymlinks(path); err == nil { // else getting it says why
				paths = append(paths, resolved)
			}
			for _, share := range c.Shares {
				if inShare(share, paths) {
					errs = append(errs, fmt.Errorf("the secret %s is in %s, which lies in the share %s, so that the guest has it anyway: move the file out of what is shared", spec.Name, path, share.Source))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// secretFiles are those that a secret is from. Of AWS, they name programs that are executed for it, too.
func secretFiles(spec secret.Spec) []string {
	switch {
	case spec.AWS():
		return aws.Files(os.Getenv)
	case spec.Source.Kind != secret.FromFile:
		return nil
	}
	if below, ok := strings.CutPrefix(spec.Source.Of, "~/"); ok {
		return []string{filepath.Join(os.Getenv("HOME"), below)}
	}
	return []string{spec.Source.Of}
}

func inShare(share virtiofs.Share, paths []string) bool {
	for _, path := range paths {
		if rel, err := filepath.Rel(share.Source, path); err == nil && filepath.IsLocal(rel) {
			return true
		}
	}
	return false
}

// ClosedSecret is a secret that is for a host to which the guest's network lets nothing through.
type ClosedSecret struct {
	Name string // of the secret
	Rule string // that would open the host
}

// ClosedSecrets are those of an allowlist without a rule for their hosts: a secret opens nothing by itself.
func (c Config) ClosedSecrets() (closed []ClosedSecret) {
	allow, deny := c.Rules()
	judge, err := stack.ConfigOf(c.Network, allow, deny)
	specs, bad := c.SecretSpecs()
	if err != nil || bad != nil || c.Network != network.ModeAllowlist {
		return nil
	}
	repositories, _ := c.gitRepositories() // as SecretSpecs has them
	for i, spec := range specs {
		// Of domains, one that is open is enough.
		domain := slices.ContainsFunc(spec.Hosts, func(h secret.Host) bool { return judge.Allow.Below(h.Name) })
		hosts := slices.DeleteFunc(slices.Clone(spec.Hosts), func(h secret.Host) bool {
			another := h.IsDomain() && domain
			domain = domain || h.IsDomain()
			return another
		})
		for _, host := range hosts {
			if v := judge.Allow.Name(host.Name, host.Port, policy.TCP); v.Allow || v.Requests {
				continue
			}
			rule := policy.RuleFor(host.Name, host.Port)
			if i >= len(c.Secrets) {
				rule = "git:" + repositories[i-len(c.Secrets)].urls[0]
			}
			closed = append(closed, ClosedSecret{spec.Name, rule})
		}
	}
	return closed
}

// RevokeSecret takes a secret away from the sandbox for good: at once if it runs. Its guest keeps the placeholder, and
// requests with it are refused. Forks that were made before keep theirs.
func (s *Sandbox) RevokeSecret(ctx context.Context, name string) error {
	return s.changeConfig(
		func(c Config) (Config, error) { return c.RevokeSecret(name) },
		func() error { return s.api().RevokeSecret(ctx, api.SecretName{Name: name}) },
	)
}

// RevokeSecret is the configuration without the secret's use.
func (c Config) RevokeSecret(name string) (Config, error) {
	specs, err := c.SecretSpecs()
	if err != nil {
		return c, err
	}
	if !slices.ContainsFunc(specs, func(s secret.Spec) bool { return s.Name == name }) {
		return c, fmt.Errorf("the sandbox %s has no secret %s", c.Name, name)
	}
	if !slices.Contains(c.Revoked, name) {
		c.Revoked = append(slices.Clone(c.Revoked), name)
	}
	return c, nil
}

// Secrets are the secrets of a sandbox, by their names.
type Secrets map[string]Secret

// Secret is one of them.
type Secret struct {
	Value secret.Value
	User  string // whose it is, which is known to the guest, if it is a password of git's
}

// Secrets gets the secrets of a sandbox that is to be made: what is missing is known before there is one.
func (h *Host) Secrets(ctx context.Context, c Config) (Secrets, error) {
	specs, err := c.SecretSpecs()
	if err != nil {
		return nil, err
	}
	sources := h.Sources()
	secrets := Secrets{}
	var errs []error
	// Not at once: commands may ask for something.
	for _, spec := range specs[:len(c.Secrets)] {
		if slices.Contains(c.Revoked, spec.Name) {
			continue
		}
		value, err := sources.Value(ctx, spec)
		secrets[spec.Name], errs = Secret{Value: value}, append(errs, err)
	}
	repositories, err := c.gitRepositories()
	errs = append(errs, err)
	for _, r := range repositories {
		if slices.Contains(c.Revoked, r.secret.Name) {
			continue
		}
		s, err := r.credentials(ctx)
		secrets[r.secret.Name], errs = s, append(errs, err)
	}
	return secrets, errors.Join(errs...)
}

// Secrets gets the sandbox's secrets as they are now.
func (s *Sandbox) Secrets(ctx context.Context) (Secrets, error) {
	c, err := s.Config()
	if err != nil {
		return nil, err
	}
	return s.host.Secrets(ctx, c)
}

// openSecrets puts the secrets into files that a process can inherit and nobody else can open, with their names. Those
// that have no placeholder yet get one. The caller holds the lock, and closes the files.
func (s *Sandbox) openSecrets(c Config, secrets Secrets) (names []string, files []*os.File, err error) {
	specs, err := c.SecretSpecs()
	if err != nil || len(specs) == 0 {
		return nil, nil, err
	}
	before := c
	c.Placeholders, c.GitUsers = maps.Clone(c.Placeholders), maps.Clone(c.GitUsers)
	if c.Placeholders == nil {
		c.Placeholders = map[string]string{}
	}
	for _, spec := range specs {
		if slices.Contains(c.Revoked, spec.Name) {
			continue
		}
		value := secrets[spec.Name].Value
		if value.IsZero() {
			err = fmt.Errorf("the secret %s has no value", spec.Name)
			break
		}
		if c.Placeholders[spec.Name] == "" {
			maps.Copy(c.Placeholders, spec.Placeholders(value))
		}
		if spec.AWS() {
			key, bad := value.AWS()
			if err = bad; err != nil {
				break
			}
			c.AWSRegion = key.Region
		}
		if user := secrets[spec.Name].User; user != "" {
			if c.GitUsers == nil {
				c.GitUsers = map[string]string{}
			}
			c.GitUsers[spec.Name] = user
		}
		if spec.Source.Kind == secret.FromLogin {
			continue // the supervisor has it from where it is kept fresh
		}
		var file *os.File
		if file, err = value.File(); err != nil {
			break
		}
		names, files = append(names, spec.Name), append(files, file)
	}
	if err == nil && (!maps.Equal(c.Placeholders, before.Placeholders) || !maps.Equal(c.GitUsers, before.GitUsers) || c.AWSRegion != before.AWSRegion) {
		err = durable.WriteJSON(s.Files().Path(layout.ConfigFile), c)
	}
	if err != nil {
		closeAll(files)
		return nil, nil, err
	}
	return names, files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
