package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/network/authority"
	"github.com/sourcery-zone/sandbox/network/stack"
)

// rootFiles are where systems have the authorities that they believe, in one file.
var rootFiles = []string{
	"/etc/ssl/certs/ca-certificates.crt",                // Debian, Nix
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem", // openSUSE
	"/etc/ssl/cert.pem",      // Alpine
}

// maxRoots is ten times what such a file has, in bytes.
const maxRoots = 4 << 20

// reader is what the network needs to read requests of which some only are open, or that
// are to have a secret in them.
type reader struct {
	authority []byte   // in PEM, with its key; nil where there are neither
	roots     *os.File // whom this machine believes, in memory; nil if it has no list of them
}

// openReader returns what the network needs at its start. The list of whom this machine believes is
// among it where rules may want it later: the process cannot open it then.
func (v *supervisor) openReader() (r reader, err error) {
	requests, err := hasRequests(v.config)
	if err != nil {
		return r, err
	}
	needed := requests || v.config.HasSecrets()
	if r.roots, err = copyRoots(rootFiles, v.certificates); err != nil && needed {
		return r, err
	}
	if needed {
		r.authority, err = v.openAuthority()
		return r, err
	}
	return r, nil
}

// openAuthority makes the sandbox's certificate authority when the first rule or secret needs one,
// and returns that one from then on: programs in the guest believe it for as long
// as they run. The guest is to believe it, but is not told here.
func (v *supervisor) openAuthority() (text []byte, err error) {
	path := v.s.Files().Key(layout.AuthorityKey)
	var a *authority.Authority
	text, err = os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if a, err = authority.New(); err == nil {
			text, err = a.MarshalPEM()
		}
		if err == nil {
			err = renameio.WriteFile(path, text, 0o600)
		}
	case err == nil:
		a, err = authority.Parse(text)
	}
	if err != nil {
		return nil, fmt.Errorf("the sandbox's certificate authority %s: %w", path, err)
	}
	v.certificates = append(slices.Clone(v.certificates), a.Certificate()...)
	return text, nil
}

// beginReading has the guest believe the authority, and the network read requests by it, where neither has been so
// from the start on. The caller holds the lock of transitions.
func (v *supervisor) beginReading(ctx context.Context) (err error) {
	if v.reader.authority != nil {
		return nil
	}
	if v.reader.roots == nil { // it may be there now, and the network's process cannot get it
		return remedy.Add(fmt.Errorf("rules for requests count from the next start of %s on: this machine had no list of the authorities that it believes when the network started (package ca-certificates)", v.s.Name), remedy.Stop, v.s.Name)
	}
	if err := v.agentClient().Require(ctx, agent.FeatureCertificates); err != nil {
		return v.explainOldAgent(err)
	}
	before := v.certificates
	defer func() {
		if err != nil {
			v.certificates = before
		}
	}()
	text, err := v.openAuthority()
	if err != nil {
		return err
	}
	if !v.paused.Load() { // and otherwise it is told when it goes on
		if err := v.resync(ctx, agent.ResumeConfig{}); err != nil {
			return err
		}
	}
	if err := v.gateway.SetAuthority(text); err != nil {
		return err
	}
	v.reader.authority = text
	return nil
}

// hasRequests tells whether there are rules for requests.
func hasRequests(c machine.Config) (bool, error) {
	allow, deny := c.Rules()
	judge, err := stack.ConfigOf(c.Network, allow, deny)
	return err == nil && judge.Allow != nil && judge.Allow.Requests(), err
}

// Close closes what is the reader's.
func (r reader) Close() {
	if r.roots != nil {
		r.roots.Close()
	}
}

// copyRoots copies the first of the files into memory, and more certificates after it: the
// process that needs it sees no file of this machine.
func copyRoots(paths []string, more []byte) (*os.File, error) {
	for _, path := range paths {
		from, err := os.Open(path)
		if err != nil {
			continue
		}
		defer from.Close()
		fd, err := unix.MemfdCreate("roots", unix.MFD_CLOEXEC)
		if err != nil {
			return nil, fmt.Errorf("copying %s: %w", path, err)
		}
		to := os.NewFile(uintptr(fd), path)
		if _, err := io.Copy(to, io.MultiReader(io.LimitReader(from, maxRoots), strings.NewReader("\n"), bytes.NewReader(more))); err != nil {
			return nil, errors.Join(fmt.Errorf("copying %s: %w", path, err), to.Close())
		}
		return to, nil
	}
	return nil, fmt.Errorf("this machine has no list of the authorities that it believes, so the network cannot tell which host answers it: install the package ca-certificates, which makes %s", paths[0])
}
