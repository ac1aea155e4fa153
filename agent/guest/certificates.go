//go:build linux

package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	// ownCertificates has the host's certificates alone, for programs that add such a file to what they believe.
	ownCertificates = "/etc/ssl/certs/sandbox.pem"
	// bundle has all that the guest's programs believe: Debian's file, to which those of others mostly lead.
	bundle = "/etc/ssl/certs/ca-certificates.crt"

	// What is between these lines in a bundle is ours. Readers of PEM pass over them.
	ownBegin = "# certificates that the sandbox's host vouches for\n"
	ownEnd   = "# end of the host's certificates\n"
)

// otherBundles are where programs of other systems look. One that is not there is not made.
var otherBundles = []string{"/etc/ssl/certs/ca-bundle.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"}

// trustCertificates makes the guest's programs believe the certificates, in PEM, and those of an earlier call no longer.
// It writes the files themselves: Debian's program for that takes seconds, and NixOS has none.
func trustCertificates(root string, certificates []byte) error {
	own := filepath.Join(root, ownCertificates)
	if len(certificates) == 0 {
		if _, err := os.Lstat(own); errors.Is(err, fs.ErrNotExist) {
			return nil // and there never were any
		}
	}
	errs := []error{addToBundle(filepath.Join(root, bundle), certificates, true)}
	for _, path := range otherBundles {
		errs = append(errs, addToBundle(filepath.Join(root, path), certificates, false))
	}
	errs = append(errs, addToJavaStore(filepath.Join(root, javaStore), certificates))
	if len(certificates) == 0 {
		errs = append(errs, os.Remove(own))
	} else {
		errs = append(errs, replaceFile(own, string(certificates), 0o644))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot make the guest believe its host's certificates: %w", err)
	}
	return nil
}

// certificates are those that the guest's programs believe because of its host.
type certificates struct {
	mu  sync.Mutex
	pem []byte
}

// trust is trustCertificates, of which no other runs at the same time.
func (c *certificates) trust(root string, pem []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pem = pem
	return trustCertificates(root, pem)
}

// certificatesPause is how long is waited before the files are looked at, as whoever makes them anew makes many.
const certificatesPause = 100 * time.Millisecond

// keep adds the certificates again when others have made the files anew, as an activation of NixOS does, and Debian's
// update-ca-certificates with each package that has some. It returns when ctx ends.
func (c *certificates) keep(ctx context.Context, root string, logger *slog.Logger) {
	var watching sync.WaitGroup
	watched := map[string]bool{}
	for _, path := range append([]string{bundle, javaStore}, otherBundles...) {
		if dir := filepath.Dir(path); watched[dir] {
			continue
		}
		watched[filepath.Dir(path)] = true
		watching.Go(func() {
			err := watch(ctx, filepath.Join(root, path), func() bool {
				select {
				case <-time.After(certificatesPause):
				case <-ctx.Done():
					return true
				}
				if err := c.again(root); err != nil {
					logger.Warn("what the network reads is refused by the guest's programs", "err", err)
				}
				return false
			})
			if err != nil && ctx.Err() == nil {
				logger.Warn("certificates may be taken away from the guest's programs", "err", err)
			}
		})
	}
	watching.Wait()
}

func (c *certificates) again(root string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pem) == 0 {
		return nil
	}
	return trustCertificates(root, c.pem)
}

func addToBundle(path string, certificates []byte, create bool) error {
	old, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && create {
		err = os.MkdirAll(filepath.Dir(path), 0o755)
	} else if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	text := bundleWith(string(old), string(certificates))
	if text == string(old) {
		return nil // as one is that is a link to another
	}
	return replaceFile(path, text, 0o644)
}

// bundleWith is a bundle with these certificates in place of those that it has had from us.
func bundleWith(old, certificates string) string {
	before, rest, ours := strings.Cut(old, ownBegin)
	if ours {
		_, after, _ := strings.Cut(rest, ownEnd)
		old = before + after
	}
	if certificates == "" {
		return old
	}
	for _, text := range []*string{&old, &certificates} {
		if *text != "" && !strings.HasSuffix(*text, "\n") {
			*text += "\n"
		}
	}
	return old + ownBegin + certificates + ownEnd
}

// certificateSettings are for programs that have a list of their own of whom they believe, and read these variables.
func certificateSettings(root string) []string {
	if _, err := os.Stat(filepath.Join(root, ownCertificates)); err != nil {
		return nil
	}
	settings := []string{"NODE_EXTRA_CA_CERTS=" + ownCertificates, "DENO_TLS_CA_STORE=system"}
	for _, name := range []string{
		"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "AWS_CA_BUNDLE",
		"NIX_SSL_CERT_FILE", "CARGO_HTTP_CAINFO", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
	} {
		settings = append(settings, name+"="+bundle)
	}
	return settings
}
