package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/internal/sshagent"
)

// askFor stands before a key of which each use is asked for. Alone, it is for all keys.
const askFor = "ask"

// pickKeys finds the keys that are named in the user's ssh agent, and returns their fingerprints, and which of them are to be
// asked for.
func pickKeys(ctx context.Context, names []string) (keys, asks []string, err error) {
	if len(names) == 0 {
		return nil, nil, nil
	}
	var plain, asked []string
	for _, name := range names {
		if name == askFor {
			name = askFor + ":" + sshagent.All
		}
		if key, ok := strings.CutPrefix(name, askFor+":"); ok {
			asked = append(asked, key)
		} else {
			plain = append(plain, name)
		}
	}
	for _, named := range []struct {
		names []string
		to    *[]string
	}{{plain, &keys}, {asked, &asks}} {
		if len(named.names) == 0 {
			continue
		}
		if *named.to, err = sshagent.Pick(ctx, os.Getenv("SSH_AUTH_SOCK"), named.names); err != nil {
			return nil, nil, fmt.Errorf("--ssh-agent: %w", err)
		}
	}
	keys = slices.Concat(keys, asks)
	slices.Sort(keys)
	return slices.Compact(keys), asks, nil
}
