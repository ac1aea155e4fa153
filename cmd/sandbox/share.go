package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func shareCommand() *cli.Command {
	return &cli.Command{
		Name:  "share",
		Usage: "decide about directories that are shared with sandboxes",
		Subcommands: []*cli.Command{
			{
				Name:      "accept",
				Usage:     "share what is in the place of a shared directory now",
				ArgsUsage: "NAME PATH...",
				Description: `A sandbox is given directories and not paths: it does not start when a directory
is another one than when it was shared, has another owner, or is a symbolic link now,
because a guest that may write above it can bring that about. If it was you, for
instance by a fresh clone, accept what is there. It is checked as with run --share,
and counts from the next start on.

EXAMPLES
   sandbox share accept work ~/src/app
   sandbox share accept work . && sandbox restart work`,
				Flags: []cli.Flag{
					&cli.BoolFlag{Name: "allow-dangerous-share", Usage: "accept even /, a whole home, or a directory of keys"},
				},
				OnUsageError: usageError,
				Action:       shareAccept,
			},
			shareRulesCommand(),
		},
	}
}

func shareAccept(c *cli.Context) error {
	if c.NArg() < 2 {
		return usage("sandbox share accept needs the name of a sandbox and the paths of its shares: sandbox inspect NAME lists them")
	}
	s, err := sandboxNamed(c.Args().First())
	if err != nil {
		return err
	}
	accepted, err := s.AcceptShares(c.Args().Tail(), c.Bool("allow-dangerous-share"))
	if err != nil {
		return allowHint(err)
	}
	for _, share := range accepted {
		fmt.Fprintln(c.App.Writer, share)
	}
	return nil
}
