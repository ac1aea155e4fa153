package debian

import (
	"bufio"
	"context"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/image/rootfs"
)

// npmTool is the npm of the image. It comes from the registry, because Debian's
// brings 340 packages with it, more than all that the rest of the image has.
type npmTool struct {
	Version   string `json:"version"`
	Integrity string `json:"integrity"` // as the registry writes it: sha512- and base64
}

// ourNPM is the newest of the last series that runs on the Node of each suite
// from bookworm on: npm 11 wants Node 20.17.
func ourNPM() npmTool {
	return npmTool{
		Version:   "10.9.9",
		Integrity: "sha512-1g+6jLQvaIuB4zwvHL7yrXuXcWZwDsCtBX8bbWDqbvJSSr9nPiDDWTHNgwXR27iIcTTW7v3A57hDW9RYv2W4Yg==",
	}
}

// settings are npm's own in the image: the user may not write to where it would
// put programs by itself.
func (npmTool) settings() rootfs.Entry {
	return rootfs.Entry{Name: npmModules + "npm/npmrc", Mode: 0o644, Data: "prefix=${HOME}/.local\n"}
}

// file is its name in the cache and in the room.
func (n npmTool) file() string { return "npm-" + n.Version + ".tgz" }

// maxNPM is many times what npm has.
const maxNPM = 64 << 20

// fetch gives the path of the package in dir, which it downloads from the
// registry unless it is there.
func (n npmTool) fetch(ctx context.Context, dir, registry string, client *http.Client) (string, error) {
	path := filepath.Join(dir, n.file())
	if data, err := os.ReadFile(path); err == nil && n.check(data) == nil {
		return path, nil
	}
	data, err := n.download(ctx, strings.TrimRight(registry, "/")+"/npm/-/"+n.file(), client)
	if err != nil {
		return "", fmt.Errorf("npm %s cannot be had from the registry %s: %w; another one is named by `registry=` in ~/.npmrc or by NPM_CONFIG_REGISTRY",
			n.Version, redacted(registry), err)
	}
	fresh := path + ".new"
	if err := os.WriteFile(fresh, data, 0o644); err != nil {
		return "", err
	}
	return path, os.Rename(fresh, path)
}

func (n npmTool) download(ctx context.Context, address string, client *http.Client) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s", response.Status)
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, maxNPM))
	if err != nil {
		return nil, err
	}
	return data, n.check(data)
}

// check compares data with what was pinned.
func (n npmTool) check(data []byte) error {
	sum := sha512.Sum512(data)
	if got := "sha512-" + base64.StdEncoding.EncodeToString(sum[:]); got != n.Integrity {
		return fmt.Errorf("what it gives is not the npm %s that this program knows (%s instead of %s)", n.Version, got, n.Integrity)
	}
	return nil
}

// redacted is an address without its password.
func redacted(address string) string {
	if u, err := url.Parse(address); err == nil {
		return u.Redacted()
	}
	return "in npm's configuration" // Parse's error would quote it
}

// defaultRegistry is npm's own default.
const defaultRegistry = "https://registry.npmjs.org/"

// registryOf finds the registry that this machine's npm uses: from the
// environment, or else from the first of npm's files that names one.
func registryOf(environ, files []string) string {
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		if strings.EqualFold(name, "npm_config_registry") && value != "" {
			return value
		}
	}
	for _, file := range files {
		if registry := registryIn(file); registry != "" {
			return registry
		}
	}
	return defaultRegistry
}

// npmFiles are npm's files of settings: the user's, and those of a
// distribution's npm and of others.
func npmFiles() []string {
	files := []string{"/etc/npmrc", "/usr/etc/npmrc", "/usr/local/etc/npmrc"}
	if home, err := os.UserHomeDir(); err == nil {
		files = append([]string{filepath.Join(home, ".npmrc")}, files...)
	}
	return files
}

// registryIn reads the one setting of an npmrc that we obey.
func registryIn(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, ok := strings.Cut(lines.Text(), "=")
		if ok && strings.TrimSpace(key) == "registry" {
			return strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	return ""
}

// registryClient believes the certificate authorities of this machine and those
// that Node is told of.
func registryClient() (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = 2 * time.Minute // for a registry behind others; the default is for ever
	if extra, err := extraCertificates(os.Getenv); err != nil {
		return nil, err
	} else if extra != nil {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, err
		}
		pool.AppendCertsFromPEM(extra)
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	return &http.Client{Transport: transport}, nil
}

// extraCertificates is what NODE_EXTRA_CA_CERTS names, or nil.
func extraCertificates(getenv func(string) string) ([]byte, error) {
	file := getenv("NODE_EXTRA_CA_CERTS")
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // as for Node, which warns
	}
	if err != nil {
		return nil, fmt.Errorf("reading the certificates of NODE_EXTRA_CA_CERTS: %w", err)
	}
	return data, nil
}
