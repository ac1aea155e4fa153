package main

import (
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/project"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/policy"
)

// applyNet gives the network mode the value of the settings files, unless the command
// line or the environment has set it, and returns the mode that results. The project's
// counts where it opens no more than what the user would get without it.
func applyNet(c *cli.Context, files []project.File, found sources) (network.Mode, error) {
	mode := network.Mode(c.String("net"))
	if found.has("net") {
		return mode, nil
	}
	take := func(s project.Setting, source project.Source) error {
		mode, found["net"] = network.Mode(s.Values[0]), source
		return c.Set("net", s.Values[0])
	}
	own, source, owns := find(files, project.UserFile, "net")
	if owns {
		if own.Err != nil {
			return mode, own.Err
		}
		if err := take(own, source); err != nil {
			return mode, err
		}
	}
	listed := !owns && (opensAList(c) || has(files, project.UserFile, "agent"))
	if listed || !owns && has(files, project.ProjectFile, "agent") {
		mode = network.ModeAllowlist
	}
	asked, source, asks := find(files, project.ProjectFile, "net")
	switch {
	case !asks:
		return mode, nil
	case asked.Err != nil:
		return mode, asked.Err
	case network.Mode(asked.Values[0]).Compare(mode) <= 0:
		return mode, take(asked, source)
	case listed: // the user's own words
		return mode, nil
	}
	return mode, remedy.Add(asked.Errorf("%q opens more than %q, which is what you have without it: a project's file may only open less", asked.Values[0], mode), remedy.SetYourself, "net")
}

// opensAList tells whether an option is used that opens what is needed for something, and nothing else.
func opensAList(c *cli.Context) bool { return c.Bool("git-push-only") || c.String("agent") != "" }

func has(files []project.File, layer project.Layer, key string) bool {
	_, _, ok := find(files, layer, key)
	return ok
}

func find(files []project.File, layer project.Layer, key string) (project.Setting, project.Source, bool) {
	for _, f := range files {
		if i := slices.IndexFunc(f.Settings, func(s project.Setting) bool { return s.Key == key }); i >= 0 && f.Source.Layer == layer {
			return f.Settings[i], f.Source, true
		}
	}
	return project.Setting{}, project.Source{}, false
}

// saysSomething tells whether a setting of a file opens or closes something in a network
// mode, and leaves out those of its values that do not: what is written for one mode must
// keep nobody from choosing another, in which all or nothing of it is open anyway.
func saysSomething(s *project.Setting, mode network.Mode) bool {
	switch s.Key {
	case "deny", "publish", "allow-host-port", "secret":
		return mode != network.ModeNone
	case "allow":
		s.Values = slices.DeleteFunc(slices.Clone(s.Values), func(text string) bool {
			rule, err := policy.ParseRule(text)
			return mode == network.ModeNone || mode == network.ModeUser || mode == network.ModePublic && err == nil && rule.CheckPublic() != nil
		})
		return len(s.Values) > 0
	}
	return true
}
