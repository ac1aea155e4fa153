package project

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/internal/trust"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/sourcery-zone/sandbox/network/secret"
)

// A consent has the values themselves and no digest of them, so that it can be shown.

// Ask is one value of an option that counts only if the user has consented to it.
type Ask struct {
	Option string `json:"option"`
	Value  string `json:"value"`
}

// Request is all that a project's file asks for of its user. It says nothing of how the
// file is written.
type Request struct {
	Directory string `json:"directory"` // of the project, without links
	Asks      []Ask  `json:"asks"`      // in order, each once
}

// File is the path of the file that asks.
func (r Request) File() string { return filepath.Join(r.Directory, FileName) }

// Request is what the file asks for, as it was read: what is consented to is what is then
// used, whatever becomes of the file.
func (f File) Request() Request {
	r := Request{Directory: f.Dir}
	for _, s := range f.Settings {
		for _, v := range s.Values {
			if f.Source.Layer == ProjectFile && Find(s.Key).Trust == Consent {
				r.Asks = append(r.Asks, Ask{s.Key, v})
			}
		}
	}
	slices.SortFunc(r.Asks, func(a, b Ask) int { return cmp.Or(cmp.Compare(a.Option, b.Option), cmp.Compare(a.Value, b.Value)) })
	r.Asks = slices.Compact(r.Asks)
	return r
}

// AutoPublish stands, among ports, for those on which the guest listens.
const AutoPublish = "auto"

const (
	maxAsk  = 300 // bytes: a longer value could look like several lines of ours
	maxAsks = 128 // of a file, which are more than anybody reads
)

// checkAsk finds what the user could not judge, or what says something else tomorrow.
func checkAsk(a Ask) error {
	if len(a.Value) > maxAsk {
		return fmt.Errorf("a value of more than %d characters is more than one can judge", maxAsk)
	}
	switch a.Option {
	case "allow":
		if namesRemote(a.Value) {
			return fmt.Errorf("%q leads where the project says, and may lead elsewhere tomorrow: write the repository's address, such as git:https://github.com/OWNER/REPOSITORY", a.Value)
		}
	case "agent":
		_, err := FindAIAgent(a.Value)
		return err
	}
	return checkAccess(a.Option, a.Value)
}

// checkAccess finds what is wrong with a value of an option that opens or closes something.
func checkAccess(option, value string) (err error) {
	switch option {
	case "allow":
		if !namesRemote(value) {
			_, err = policy.ParseRule(value)
		}
	case "deny":
		_, err = policy.ParseDeny(value)
	case "allow-host-port":
		_, err = network.ParseHostPort(value)
	case "secret":
		_, err = secret.Parse(value)
	case "publish":
		if value != AutoPublish {
			_, err = network.ParseForward(value)
		}
	}
	if errors.Is(err, policy.ErrHost) {
		err = remedy.Add(err, remedy.Set, "allow-host-port", "PORT")
	}
	return err
}

// namesRemote tells whether a rule is for where a remote of the shared repositories leads.
func namesRemote(rule string) bool {
	remote, ok := strings.CutPrefix(rule, "git:")
	return ok && !strings.Contains(remote, ":")
}

// Consents are the requests to which the user has consented: a file for each project, in
// a directory of the user's alone.
type Consents struct{ Dir string }

func (c Consents) path(project string) string {
	return filepath.Join(c.Dir, fmt.Sprintf("%x.json", sha256.Sum256([]byte(project))))
}

// Has tells whether the user has consented to all of the request, and to nothing else for
// its project. A consent that cannot be read is none.
func (c Consents) Has(r Request) bool {
	given, err := c.Of(r.Directory)
	return err == nil && slices.Equal(given.Asks, r.Asks)
}

// Of is the request of a project to which the user has consented last. The error is
// os.ErrNotExist if there is none.
func (c Consents) Of(project string) (Request, error) {
	r, err := readConsent(c.path(project))
	if err == nil && r.Directory != project {
		err = fmt.Errorf("%s is about another project, %q", c.path(project), r.Directory)
	}
	return r, err
}

func readConsent(path string) (r Request, err error) {
	// Who has become root by sudo is not whom root believes here.
	f, err := trust.Caller(func(string) string { return "" }).Open(path)
	if err != nil {
		return r, err
	}
	defer f.Close()
	d := json.NewDecoder(io.LimitReader(f, maxSize))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, fmt.Errorf("%s is damaged or from a newer version: %w", path, err)
	}
	return r, nil
}

// Give remembers the user's consent, which takes the place of what was given before for
// that project.
func (c Consents) Give(r Request) error {
	dir, err := trust.MakeDir(c.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return durable.WriteJSON(c.path(r.Directory), r)
}

// Withdraw forgets the consent for a project. The error is os.ErrNotExist if there is none.
func (c Consents) Withdraw(project string) error { return os.Remove(c.path(project)) }

// List are all requests to which the user has consented, by their projects. What cannot
// be read is in the error.
func (c Consents) List() ([]Request, error) {
	paths, err := filepath.Glob(filepath.Join(c.Dir, "*.json"))
	errs := []error{err}
	var all []Request
	for _, path := range paths {
		r, err := readConsent(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b Request) int { return cmp.Compare(a.Directory, b.Directory) })
	return all, errors.Join(errs...)
}
