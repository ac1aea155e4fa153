package main

import (
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/machine/project"
)

// createFlags describe a sandbox to be made.
func createFlags() []cli.Flag {
	return optionFlags(func(o project.Option) bool { return !o.Command })
}

// optionFlags are the flags of those options.
func optionFlags(of func(project.Option) bool) []cli.Flag {
	var flags []cli.Flag
	for _, o := range project.Options() {
		if of(o) {
			flags = append(flags, optionFlag(o))
		}
	}
	return flags
}

func optionFlag(o project.Option) cli.Flag {
	var aliases, variables []string
	if o.Letter != "" {
		aliases = []string{o.Letter}
	}
	if o.Variable {
		variables = []string{o.Environment()}
	}
	switch o.Kind {
	case project.Number:
		return &cli.IntFlag{Name: o.Name, Aliases: aliases, EnvVars: variables, Usage: o.Usage, Hidden: o.Hidden}
	case project.Switch:
		return &cli.BoolFlag{Name: o.Name, Aliases: aliases, EnvVars: variables, Usage: o.Usage, Hidden: o.Hidden}
	case project.List, project.Shares:
		return &cli.StringSliceFlag{Name: o.Name, Aliases: aliases, EnvVars: variables, Usage: o.Usage + "; repeatable", Hidden: o.Hidden}
	case project.Duration:
		value, _ := time.ParseDuration(o.Default) // a test reads each
		return &cli.DurationFlag{Name: o.Name, Aliases: aliases, EnvVars: variables, Value: value, Usage: o.Usage, Hidden: o.Hidden}
	}
	return &cli.StringFlag{Name: o.Name, Aliases: aliases, EnvVars: variables, Value: o.Default, Usage: o.Usage, Hidden: o.Hidden}
}

// sources are where the values of options came from, by their names. What is not in
// it is the image's, or a default of ours.
type sources map[string]project.Source

// givenOptions are the sources of what the command line and the environment set.
func givenOptions(c *cli.Context) sources {
	found := sources{}
	flags := given(c)
	for _, o := range project.Options() {
		switch {
		case slices.Contains(flags, o.Name):
			found[o.Name] = project.Source{Layer: project.Flag}
		case c.IsSet(o.Name):
			found[o.Name] = project.Source{Layer: project.Environment, Name: o.Environment()}
		}
	}
	return found
}
