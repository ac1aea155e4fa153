package main

import (
	"errors"
	"strings"

	units "github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/machine"
)

func sessionsCommand() *cli.Command {
	return &cli.Command{
		Name:  "sessions",
		Usage: "list and remove the sessions of AI agents that are kept for projects",
		Description: `With sandbox run --agent-home sessions, an AI agent's sessions outlive its sandboxes, and the
next one of the same project has them. They are what guests have written: no program of this
machine reads them.`,
		Subcommands: []*cli.Command{sessionsLsCommand(), sessionsRmCommand()},
	}
}

func sessionsLsCommand() *cli.Command {
	return lister[machine.KeptSessions]{
		of: "sessions", usage: "list the sessions that are kept, by project and AI agent",
		list: func() ([]machine.KeptSessions, error) {
			host, err := machine.Open()
			if err != nil {
				return nil, err
			}
			return host.Sessions()
		},
		columns: []string{"ID", "SIZE", "SANDBOXES"},
		row: func(k machine.KeptSessions) []string {
			return []string{k.ID, units.BytesSize(float64(k.Used)), strings.Join(k.Sandboxes, ", ")}
		},
		id: func(k machine.KeptSessions) string { return k.ID },
	}.command()
}

func sessionsRmCommand() *cli.Command {
	return &cli.Command{
		Name:      "rm",
		Usage:     "remove sessions, of which no sandbox is left",
		ArgsUsage: "ID...",
		Description: `EXAMPLES
   sandbox sessions rm app-0f3a9c51/claude
   sandbox sessions rm $(sandbox sessions ls -q)`,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return usage("sandbox sessions rm needs the id of sessions, as sandbox sessions ls shows it")
			}
			host, err := machine.Open()
			if err != nil {
				return err
			}
			var errs []error
			for _, id := range c.Args().Slice() {
				errs = append(errs, host.RemoveSessions(id))
			}
			return errors.Join(errs...)
		},
	}
}
