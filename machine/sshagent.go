package machine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/internal/sshagent"
	"github.com/sourcery-zone/sandbox/network"
)

// maxSSHAgentKeys bounds how many keys of the user's ssh agent a guest may use.
const maxSSHAgentKeys = 64

// Asks tells whether the user may be asked something while the sandbox runs.
func (c Config) Asks() bool {
	return c.Network == network.ModeAsk || len(c.SSHAgentAsk) > 0 || len(c.GPGAgentAsk) > 0
}

func (c Config) validateSSHAgentKeys() error {
	if len(c.SSHAgentKeys) > maxSSHAgentKeys {
		return fmt.Errorf("%d keys of the ssh agent are too many: a guest may use at most %d", len(c.SSHAgentKeys), maxSSHAgentKeys)
	}
	for _, key := range c.SSHAgentAsk {
		if !slices.Contains(c.SSHAgentKeys, key) {
			return fmt.Errorf("the user is to be asked for the key %q, which the guest may not use", key)
		}
	}
	for _, key := range c.SSHAgentKeys {
		if !strings.HasPrefix(key, "SHA256:") {
			return fmt.Errorf("%q is not the fingerprint of a key", key)
		}
	}
	return nil
}

// findSSHAgent returns the path of the socket of the user's ssh agent. With an error, nobody answers there, or there
// is none; one that answers later is used then.
func findSSHAgent(ctx context.Context) (string, error) {
	socket := os.Getenv("SSH_AUTH_SOCK")
	conn, err := sshagent.Dial(ctx, socket)
	if socket != "" {
		if path, bad := filepath.Abs(socket); bad == nil { // the supervisor runs in another directory
			socket = path
		}
	}
	if err != nil {
		return socket, err
	}
	return socket, conn.Close()
}
