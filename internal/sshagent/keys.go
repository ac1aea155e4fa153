package sshagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// All is what stands for all keys that an agent has.
const All = "all"

const (
	// listTime bounds how long the user's agent may take to say which keys it has.
	listTime = 10 * time.Second

	// maxKeyFile bounds a public key, in bytes.
	maxKeyFile = 64 << 10
)

// Dial connects to the agent whose socket is at the path.
func Dial(ctx context.Context, socket string) (net.Conn, error) {
	if socket == "" {
		return nil, errors.New("there is no ssh agent: SSH_AUTH_SOCK is not set")
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("your ssh agent (SSH_AUTH_SOCK) cannot be reached: %w", err)
	}
	return conn, nil
}

// Pick returns the fingerprints of the keys of the agent at the socket that are named: by their comment or fingerprint, or
// by the path of a public key. [All] stands for those that the agent has.
func Pick(ctx context.Context, socket string, names []string) ([]string, error) {
	conn, err := Dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	keys, err := list(ctx, conn, agent.NewClient(conn))
	if err != nil {
		return nil, err
	}
	var picked []string
	var errs []error
	for _, name := range names {
		found, err := find(keys, name)
		picked, errs = append(picked, found...), append(errs, err)
	}
	slices.Sort(picked)
	return slices.Compact(picked), errors.Join(errs...)
}

// list is what an agent says that it has, by the only client of the connection: each reads all answers.
func list(ctx context.Context, conn net.Conn, client agent.Agent) ([]*agent.Key, error) {
	stop := closeAfter(ctx, conn, listTime)
	defer stop()
	keys, err := client.List()
	if err != nil {
		return nil, fmt.Errorf("your ssh agent does not say which keys it has: %w", err)
	}
	return keys, nil
}

// closeAfter closes the connection when ctx ends, or after that time.
func closeAfter(ctx context.Context, conn io.Closer, limit time.Duration) (stop func()) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	unhook := context.AfterFunc(ctx, func() { conn.Close() })
	return func() {
		unhook()
		cancel()
	}
}

func find(keys []*agent.Key, name string) ([]string, error) {
	var found []string
	for _, key := range keys {
		if name == All || name == key.Comment || name == Fingerprint(key.Blob) {
			found = append(found, Fingerprint(key.Blob))
		}
	}
	slices.Sort(found)
	found = slices.Compact(found) // a key and its certificates are one
	if of, err := ofFile(name); err == nil && len(found) == 0 && slices.ContainsFunc(keys, func(k *agent.Key) bool { return Fingerprint(k.Blob) == of }) {
		found = []string{of}
	}
	switch {
	case len(keys) == 0:
		return nil, errors.New("your ssh agent has no keys: ssh-add gives it some")
	case len(found) == 0:
		return nil, fmt.Errorf("your ssh agent has no key %q; it has\n%s", name, describe(keys))
	case len(found) > 1 && name != All:
		return nil, fmt.Errorf("several keys of your ssh agent are called %q: name one by its fingerprint, of\n%s", name, describe(keys))
	}
	return found, nil
}

// ofFile is the fingerprint of a public key in a file.
func ofFile(path string) (string, error) {
	if below, ok := strings.CutPrefix(path, "~/"); ok {
		path = filepath.Join(os.Getenv("HOME"), below)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return "", err
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return "", err
	}
	return Fingerprint(key.Marshal()), nil
}

// describe lists keys as ssh-add -l does, each on a line of its own.
func describe(keys []*agent.Key) string {
	var lines []string
	for _, key := range keys {
		lines = append(lines, fmt.Sprintf("  %s %s", Fingerprint(key.Blob), key.Comment))
	}
	slices.Sort(lines)
	return strings.Join(slices.Compact(lines), "\n")
}

// Fingerprint is the fingerprint of a public key in the form of the protocol, as ssh-add shows it. That of a certificate
// is its key's.
func Fingerprint(blob []byte) string {
	key, err := ssh.ParsePublicKey(blob)
	if err != nil { // of a kind that only the agent knows
		return ssh.FingerprintSHA256(&agent.Key{Blob: blob})
	}
	if certificate, ok := key.(*ssh.Certificate); ok {
		key = certificate.Key
	}
	return ssh.FingerprintSHA256(key)
}
