package main

import (
	"context"
	"fmt"
	"os"

	"github.com/sourcery-zone/sandbox/internal/sshagent"
)

// pickKeys finds the keys that are named in the user's ssh agent, and returns their fingerprints.
func pickKeys(ctx context.Context, names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	keys, err := sshagent.Pick(ctx, os.Getenv("SSH_AUTH_SOCK"), names)
	if err != nil {
		return nil, fmt.Errorf("--ssh-agent: %w", err)
	}
	return keys, nil
}
