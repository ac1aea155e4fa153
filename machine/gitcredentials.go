package machine

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"unicode"

	"github.com/sourcery-zone/sandbox/network/aws"
	"github.com/sourcery-zone/sandbox/network/secret"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// gitRepository is one of which the guest uses the credentials that the host's git has.
type gitRepository struct {
	address *url.URL    // with the user whose they are, if it says so
	urls    [2]string   // by which git asks for it: servers take both
	secret  secret.Spec // the password, which the guest's variable stands for
}

// parseRepository reads an address, which may be what a guest has written. The number tells the sandbox's repositories apart.
func parseRepository(address string, number int) (r gitRepository, err error) {
	u, err := url.Parse(address)
	shown := address
	switch {
	case err == nil:
		shown = u.Redacted()
	case strings.Contains(address, "://"): // which may hold a password
		return r, errors.New("not an address that can be read")
	}
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return r, fmt.Errorf("%q, and git's credentials are used by https only: give the remote its https address, as by git remote set-url origin https://github.com/OWNER/REPOSITORY", shown)
	}
	user := ""
	if u.User != nil {
		if user = u.User.Username(); strings.ContainsFunc(user, unicode.IsControl) {
			return r, fmt.Errorf("%q, whose user is no name", shown)
		}
	}
	path := strings.TrimSuffix(u.EscapedPath(), "/")
	name := strings.TrimSuffix(path, ".git")
	if name == "" || strings.HasSuffix(name, "/") {
		return r, fmt.Errorf("%q, which names no repository", shown)
	}
	r.address = &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimSuffix(u.Path, "/"), RawPath: path}
	if user != "" {
		r.address.User = url.User(user)
	}
	var places []string
	for i, path := range []string{name, name + ".git"} {
		r.urls[i] = "https://" + u.Host + path
		places = append(places, u.Host+strings.NewReplacer(",", "%2C", "@", "%40", "=", "%3D", "*", "%2A").Replace(path))
	}
	r.secret, err = secret.Parse(fmt.Sprintf("GIT_PASSWORD_%d@%s,header=Authorization", number, strings.Join(places, ",")))
	if err != nil {
		return r, fmt.Errorf("%q, which cannot have a secret: %w", shown, err)
	}
	return r, nil
}

// resolveCredentials replaces names of remotes by the addresses to which they lead now, as ResolveRemotes does.
func resolveCredentials(remotes []string, shares []virtiofs.Share) (resolved []string, err error) {
	var known [][]string
	for _, remote := range remotes {
		found := false
		for _, share := range SharedDirectories(shares) {
			addresses, err := remoteAddresses(share.Source, remote)
			if err != nil {
				return nil, fmt.Errorf("git's credentials: %w", err)
			}
			for _, address := range addresses {
				r, err := parseRepository(address, 0)
				if err != nil {
					return nil, fmt.Errorf("git's credentials: the remote of %s is %w", share.Source, err)
				}
				found = true
				if places := r.secret.Places(); !slices.ContainsFunc(known, func(other []string) bool { return slices.Equal(other, places) }) {
					known, resolved = append(known, places), append(resolved, r.address.String())
				}
			}
		}
		if !found {
			return nil, fmt.Errorf("git's credentials are for the remote %s of the repositories that are shared, and there is none: share a repository that has it", remote)
		}
	}
	return resolved, nil
}

// gitRepositories are those of GitCredentials, which Resolve has made addresses.
func (a Access) gitRepositories() (all []gitRepository, err error) {
	for i, address := range a.GitCredentials {
		r, err := parseRepository(address, i+1)
		if err != nil {
			return nil, fmt.Errorf("git's credentials: the repository is %w", err)
		}
		all = append(all, r)
	}
	return all, nil
}

// credentials asks the host's git, whose helpers may ask on the user's terminal.
func (r gitRepository) credentials(ctx context.Context) (s Secret, err error) {
	question := fmt.Sprintf("protocol=https\nhost=%s\npath=%s\n", r.address.Host, strings.TrimPrefix(r.address.Path, "/"))
	if r.address.User != nil {
		question += "username=" + r.address.User.Username() + "\n"
	}
	cmd := exec.CommandContext(ctx, "git", "credential", "fill")
	// In no repository: its configuration, which guests write, would name programs to execute.
	cmd.Dir = "/"
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "GIT_COMMON_DIR=") }), "GIT_DIR=/dev/null")
	cmd.Stdin, cmd.Stderr = strings.NewReader(question+"\n"), os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // on which it lets a terminal show again what is typed
	cmd.WaitDelay = gitPatience
	out, err := cmd.Output()
	if cause := context.Cause(ctx); cause != nil {
		return s, cause
	}
	if errors.Is(err, exec.ErrNotFound) {
		return s, errors.New("git's credentials need git: install it")
	}
	const remedy = "store them with your credential helper (git help credentials), as git does after a push to it outside of the sandbox"
	if err != nil {
		return s, fmt.Errorf("git has no credentials for %s: %w: %s", r.urls[0], err, remedy)
	}
	var password string
	for line := range bytes.Lines(out) {
		switch name, value, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), "="); name {
		case "username":
			s.User = value
		case "password":
			password = value
		}
	}
	switch {
	case password == "":
		return s, fmt.Errorf("git has no password for %s: %s", r.urls[0], remedy)
	case password == "x-oauth-basic", strings.Contains(s.User, ":"):
		return Secret{}, fmt.Errorf("git has a user's name for %s that may be a secret itself, and which the guest would know: store the token as the password, with any name", r.urls[0])
	}
	if s.Value, err = secret.NewValue(password); err != nil {
		return Secret{}, fmt.Errorf("git's password for %s cannot be a secret: %w", r.urls[0], err)
	}
	return s, nil
}

// Variables are those of the guest's sessions, as NAME=VALUE, with nothing secret in them.
func (a Access) Variables() (variables []string, err error) {
	for name, placeholder := range a.Placeholders {
		variables = append(variables, name+"="+placeholder)
	}
	if a.AWSRegion != "" {
		variables = append(variables, aws.VariableRegion+"="+a.AWSRegion, aws.VariableDefaultRegion+"="+a.AWSRegion)
	}
	slices.Sort(variables)
	ofLogins, errLogins := a.loginVariables()
	variables = append(variables, ofLogins...)
	repositories, err := a.gitRepositories()
	if len(repositories) == 0 {
		return variables, errors.Join(errLogins, err)
	}
	// Not by a credential helper, which is asked only after a server has refused a request, and is a program to quote.
	n := 0
	for _, r := range repositories {
		name := r.secret.Name
		header := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(a.GitUsers[name]+":"+a.Placeholders[name]))
		for _, address := range r.urls {
			variables = append(variables, fmt.Sprintf("GIT_CONFIG_KEY_%d=http.%s.extraHeader", n, address), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", n, header))
			n++
		}
	}
	return append(variables, fmt.Sprintf("GIT_CONFIG_COUNT=%d", n)), nil
}
