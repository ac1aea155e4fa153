package main

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/project"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// TestASandboxHasWhatWasAnsweredForItsProject has the project of each, and what is allowed.
func TestASandboxHasWhatWasAnsweredForItsProject(t *testing.T) {
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	answers := project.Answers{Dir: filepath.Join(base, "answers")}
	for _, rule := range []string{"a.example", "b.example:22"} {
		if err := answers.Add("/srv/project", rule); err != nil {
			t.Fatal(err)
		}
	}
	share := func(dirs ...string) (shares []virtiofs.Share) {
		for _, dir := range dirs {
			shares = append(shares, virtiofs.Share{Source: dir})
		}
		return shares
	}
	flag := sources{"allow": {Layer: project.Flag}}
	for name, tt := range map[string]struct {
		dir     string
		shares  []virtiofs.Share
		mode    network.Mode
		allow   []string
		from    sources
		project string
		want    []string
		source  string
	}{
		"of its file":             {"/srv/project", share("/srv/other"), network.ModeAsk, nil, sources{}, "/srv/project", []string{"a.example", "b.example:22"}, "answers for /srv/project"},
		"of its first share":      {"", share("/srv/project", "/srv/other"), network.ModeAsk, nil, sources{}, "/srv/project", []string{"a.example", "b.example:22"}, "answers for /srv/project"},
		"beside what is allowed":  {"/srv/project", nil, network.ModeAsk, []string{"c.example", "a.example"}, flag, "/srv/project", []string{"c.example", "a.example", "b.example:22"}, "flag, answers for /srv/project"},
		"of another share":        {"", share("/srv/other", "/srv/project"), network.ModeAsk, nil, sources{}, "/srv/other", nil, "default"},
		"of a directory below":    {"/srv/project/sub", nil, network.ModeAsk, nil, sources{}, "/srv/project/sub", nil, "default"},
		"of none":                 {"", nil, network.ModeAsk, nil, sources{}, "", nil, "default"},
		"which does not ask":      {"/srv/project", nil, network.ModeAllowlist, []string{"c.example"}, flag, "/srv/project", []string{"c.example"}, "flag"},
		"which opens all anyway":  {"/srv/project", nil, network.ModePublic, nil, sources{}, "/srv/project", nil, "default"},
		"which opens nothing":     {"/srv/project", nil, network.ModeNone, nil, sources{}, "/srv/project", nil, "default"},
		"which has all of it":     {"/srv/project", nil, network.ModeAsk, []string{"b.example:22", "a.example"}, flag, "/srv/project", []string{"b.example:22", "a.example"}, "flag"},
		"whose mode is left open": {"/srv/project", nil, "", nil, sources{}, "/srv/project", nil, "default"},
	} {
		config := machine.Config{Hardware: machine.Hardware{Network: tt.mode}, Access: machine.Access{Shares: tt.shares, Allow: tt.allow}}
		found := sources{}
		for key, source := range tt.from {
			found[key] = source
		}
		joinProject(&config, tt.dir, answers, found)
		if config.Project != tt.project || !slices.Equal(config.Allow, tt.want) || found["allow"].String() != tt.source {
			t.Errorf("a sandbox %s is of %q with %q from %q, want %q with %q from %q", name, config.Project, config.Allow, found["allow"], tt.project, tt.want, tt.source)
		}
	}
}
