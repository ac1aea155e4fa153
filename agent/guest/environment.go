//go:build linux

package guest

import (
	"context"
	"errors"
	"strings"

	"github.com/sourcery-zone/sandbox/agent/server"
)

// settingsWith puts those of certificates and of the host before others, which win.
func (s *service) settingsWith(others func(context.Context, server.User) []string) func(context.Context, server.User) []string {
	return func(ctx context.Context, user server.User) []string {
		s.mu.Lock()
		ofHost := s.config.Environment
		s.mu.Unlock()
		return append(append(certificateSettings("/"), ofHost...), others(ctx, user)...)
	}
}

// checkEnvironment quotes none of what it finds wrong, which may be worth something.
func checkEnvironment(variables []string) error {
	for _, v := range variables {
		if name, _, ok := strings.Cut(v, "="); !ok || name == "" || strings.ContainsRune(v, 0) {
			return errors.New("a variable of the host lacks its name or its value, or has a zero byte in it")
		}
	}
	return nil
}
