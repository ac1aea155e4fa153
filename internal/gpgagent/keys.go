package gpgagent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strings"
	"time"
)

const (
	// listTime bounds how long gpg may take to tell of keys.
	listTime = 30 * time.Second

	// maxPublicKey bounds a public key in bytes: it is given to a program in the guest as an argument, of 128 KiB at most.
	maxPublicKey = 64 << 10
)

// Key is an OpenPGP key of the user's that can sign.
type Key struct {
	Fingerprint string   `json:"fingerprint"` // of the primary key, in capital hexadecimal digits
	Keygrips    []string `json:"keygrips"`    // by which gpg-agent knows those of its parts that sign
	Public      string   `json:"public"`      // in ASCII armor, without signatures of others
}

// Validate returns what is wrong with a key.
func (k Key) Validate() error {
	if len(k.Fingerprint) < 40 || !capitalHex(k.Fingerprint) {
		return fmt.Errorf("%q is not the fingerprint of an OpenPGP key", k.Fingerprint)
	}
	for _, grip := range k.Keygrips {
		if !isKeygrip(grip) {
			return fmt.Errorf("%q is not the keygrip of a part of the key %s", grip, k.Fingerprint)
		}
	}
	if len(k.Keygrips) == 0 {
		return fmt.Errorf("no part of the key %s can sign", k.Fingerprint)
	}
	return nil
}

// isKeygrip tells whether it is one as gpg writes it: 20 bytes.
func isKeygrip(s string) bool { return len(s) == 40 && capitalHex(s) }

func capitalHex(s string) bool { return strings.Trim(s, "0123456789ABCDEF") == "" }

// Pick returns the user's key that is named as gpg names keys: by a fingerprint, an ID, or an address. Where subkeys sign, they
// alone do: the primary key can also make other keys valid.
func Pick(ctx context.Context, name string) (Key, error) {
	listed, err := gpg(ctx, "--with-colons", "--with-keygrip", "--list-secret-keys", "--", name)
	if err != nil {
		return Key{}, fmt.Errorf("gpg finds no secret key %q (gpg --list-secret-keys lists those that there are): %w", name, err)
	}
	keys := parseSecretKeys(string(listed))
	if len(keys) > 1 {
		var lines []string
		for _, key := range keys {
			lines = append(lines, "  "+key.Fingerprint)
		}
		return Key{}, fmt.Errorf("several of your keys are called %q: name one by its fingerprint, of\n%s", name, strings.Join(lines, "\n"))
	}
	if len(keys) == 0 || len(keys[0].Keygrips) == 0 {
		return Key{}, fmt.Errorf("no part of the key %q can sign: it has none for that, or they have expired or been revoked, or are not on this machine", name)
	}
	key := keys[0]
	public, err := gpg(ctx, "--armor", "--export-options", "export-minimal", "--export", "--", key.Fingerprint)
	if err != nil {
		return Key{}, fmt.Errorf("the public key %s cannot be had: %w", key.Fingerprint, err)
	}
	if len(public) > maxPublicKey {
		return Key{}, fmt.Errorf("the public key %s has %d bytes, and may have %d", key.Fingerprint, len(public), maxPublicKey)
	}
	key.Public = string(public)
	return key, key.Validate()
}

// The fields of a line of gpg --with-colons, as of its doc/DETAILS.
const (
	fieldType         = 0
	fieldValidity     = 1
	fieldValue        = 9
	fieldCapabilities = 11
	fieldToken        = 14
	fields            = 15
)

// parseSecretKeys reads the keys of gpg --with-colons --with-keygrip --list-secret-keys.
func parseSecretKeys(text string) []Key {
	type part struct{ primary, signs bool }
	var keys []Key
	var now part
	var subkeys [][]string // keygrips of those that sign, by key
	for line := range strings.Lines(text) {
		field := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		field = append(field, make([]string, max(0, fields-len(field)))...)
		switch field[fieldType] {
		case "sec", "ssb":
			now.primary = field[fieldType] == "sec"
			now.signs = strings.Contains(field[fieldCapabilities], "s") && !strings.ContainsAny(field[fieldValidity], "ired") && field[fieldToken] != "#"
			if now.primary {
				keys, subkeys = append(keys, Key{}), append(subkeys, nil)
			}
		case "fpr":
			if now.primary && len(keys) > 0 {
				keys[len(keys)-1].Fingerprint = field[fieldValue]
			}
		case "grp":
			switch last := len(keys) - 1; {
			case !now.signs || last < 0:
			case now.primary:
				keys[last].Keygrips = []string{field[fieldValue]}
			default:
				subkeys[last] = append(subkeys[last], field[fieldValue])
			}
		}
	}
	for i, grips := range subkeys {
		if len(grips) > 0 {
			keys[i].Keygrips = grips
		}
	}
	return keys
}

// FindSocket returns the path of the extra socket of the user's gpg-agent, which is started if it does not run.
func FindSocket(ctx context.Context) (string, error) {
	if _, err := run(ctx, "gpgconf", "--launch", "gpg-agent"); err != nil {
		return "", fmt.Errorf("your gpg-agent cannot be started: %w", err)
	}
	out, err := run(ctx, "gpgconf", "--list-dirs", "agent-extra-socket")
	if err != nil {
		return "", fmt.Errorf("the socket of your gpg-agent is not known: %w", err)
	}
	path, err := unescape(strings.TrimSpace(string(out))) // gpgconf escapes colons
	if err != nil || path == "" {
		return "", errors.New("your gpg-agent has no extra socket")
	}
	return path, nil
}

// Dial connects to the agent whose socket is at the path.
func Dial(ctx context.Context, socket string) (net.Conn, error) {
	if socket == "" {
		return nil, errors.New("there is no gpg-agent")
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("your gpg-agent cannot be reached: %w", err)
	}
	return conn, nil
}

func gpg(ctx context.Context, args ...string) ([]byte, error) {
	return run(ctx, "gpg", slices.Concat([]string{"--batch", "--no-tty"}, args)...)
}

func run(ctx context.Context, program string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	cmd.WaitDelay = time.Second // an agent that it starts may keep its outputs
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("%s is not on this machine: install gnupg", program)
	}
	if err != nil {
		text, _ := io.ReadAll(io.LimitReader(&complaints, maxLine))
		return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(text))
	}
	return out, nil
}
