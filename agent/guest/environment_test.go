//go:build linux

package guest

import (
	"context"
	"slices"
	"testing"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/server"
)

func TestVariablesOfTheHostYieldToTheGuestsOwn(t *testing.T) {
	var s service
	settings := s.settingsWith(func(context.Context, server.User) []string { return []string{"KEY=of the guest"} })
	of := func(config agent.BootConfig) []string {
		s.config = config
		return settings(t.Context(), server.User{})
	}
	got := of(agent.BootConfig{Environment: []string{"KEY=of the host", "OTHER=1"}})
	if i := slices.Index(got, "KEY=of the host"); i < 0 || i > slices.Index(got, "KEY=of the guest") || !slices.Contains(got, "OTHER=1") {
		t.Errorf("%q: later ones win", got)
	}
	// As when the guest becomes another one.
	if got := of(agent.BootConfig{Environment: []string{"KEY=of another"}}); !slices.Contains(got, "KEY=of another") || slices.Contains(got, "KEY=of the host") {
		t.Errorf("%q", got)
	}
}
