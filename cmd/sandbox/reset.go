package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/machine"
)

func resetCommand() *cli.Command {
	return &cli.Command{
		Name:      "reset",
		Usage:     "return sandboxes to their image's state; homes and shares stay",
		ArgsUsage: "NAME...",
		Description: `The sandbox's disk, with what was installed and everything else outside home and
shares, is removed; the next start makes an empty one. A sandbox without --disk
starts clean each time, and has nothing to reset. Configuration and home stay.

EXAMPLES
   sandbox reset work
   sandbox reset --force work               also when it runs`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "end a running sandbox first"},
		},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			return eachNamed(c, func(ctx context.Context, s *machine.Sandbox) error {
				return s.Reset(ctx, c.Bool("force"))
			})
		},
	}
}
