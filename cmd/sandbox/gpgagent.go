package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/internal/gpgagent"
)

// pickGPGKeys finds the user's OpenPGP keys that are named, and returns them, and the fingerprints of those that are to be
// asked for.
func pickGPGKeys(ctx context.Context, names []string) (keys []gpgagent.Key, asks []string, err error) {
	for _, name := range names {
		name, asked := strings.CutPrefix(name, askFor+":")
		key, err := gpgagent.Pick(ctx, name)
		if err != nil {
			return nil, nil, fmt.Errorf("--gpg-agent: %w", err)
		}
		if !slices.ContainsFunc(keys, func(k gpgagent.Key) bool { return k.Fingerprint == key.Fingerprint }) {
			keys = append(keys, key)
		}
		if asked && !slices.Contains(asks, key.Fingerprint) {
			asks = append(asks, key.Fingerprint)
		}
	}
	return keys, asks, nil
}
