package machine

import (
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/internal/gpgagent"
)

func TestKeysOfGPGAgentAreChecked(t *testing.T) {
	key := gpgagent.Key{Fingerprint: strings.Repeat("AB", 20), Keygrips: []string{strings.Repeat("CD", 20)}}
	good := Config{Access: Access{GPGAgentKeys: []gpgagent.Key{key}, GPGAgentAsk: []string{key.Fingerprint}}}
	if err := good.validateGPGAgentKeys(); err != nil || !good.Asks() {
		t.Error(err)
	}
	injected, none := key, key
	injected.Keygrips = []string{key.Keygrips[0][:38] + "\nX"}
	none.Keygrips = nil
	for name, bad := range map[string]Access{
		"no fingerprint":          {GPGAgentKeys: []gpgagent.Key{{Fingerprint: "me", Keygrips: key.Keygrips}}},
		"no keygrip":              {GPGAgentKeys: []gpgagent.Key{injected}},
		"no part that signs":      {GPGAgentKeys: []gpgagent.Key{none}},
		"a key that is not lent":  {GPGAgentAsk: []string{key.Fingerprint}},
		"more keys than may lend": {GPGAgentKeys: make([]gpgagent.Key, maxGPGAgentKeys+1)},
	} {
		if err := (Config{Access: bad}).validateGPGAgentKeys(); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
