package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/machine"
)

func pauseCommand() *cli.Command {
	return &cli.Command{
		Name:      "pause",
		Usage:     "let sandboxes stand still",
		ArgsUsage: "NAME...",
		Description: `Their processors stop and cost nothing; their memory, and the commands that run in
them, stay as they are. Other machines may lose patience with connections that the
guest has open.

EXAMPLES
   sandbox pause work
   sandbox resume work`,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			return eachNamed(c, func(ctx context.Context, s *machine.Sandbox) error { return s.Pause(ctx) })
		},
	}
}

func resumeCommand() *cli.Command {
	return &cli.Command{
		Name:      "resume",
		Usage:     "let paused sandboxes go on, with the right time",
		ArgsUsage: "NAME...",
		Description: `EXAMPLES
   sandbox resume work`,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			return eachNamed(c, func(ctx context.Context, s *machine.Sandbox) error { return s.Resume(ctx) })
		},
	}
}
