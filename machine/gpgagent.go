package machine

import (
	"fmt"
	"slices"

	"github.com/sourcery-zone/sandbox/internal/gpgagent"
)

// maxGPGAgentKeys bounds with how many keys of the user's gpg-agent a guest may sign.
const maxGPGAgentKeys = 64

func (c Config) validateGPGAgentKeys() error {
	if len(c.GPGAgentKeys) > maxGPGAgentKeys {
		return fmt.Errorf("%d keys of gpg-agent are too many: a guest may sign with at most %d", len(c.GPGAgentKeys), maxGPGAgentKeys)
	}
	for _, fingerprint := range c.GPGAgentAsk {
		if !slices.ContainsFunc(c.GPGAgentKeys, func(k gpgagent.Key) bool { return k.Fingerprint == fingerprint }) {
			return fmt.Errorf("the user is to be asked for the key %q, with which the guest may not sign", fingerprint)
		}
	}
	for _, key := range c.GPGAgentKeys {
		if err := key.Validate(); err != nil {
			return err
		}
	}
	return nil
}
