package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/machine"
)

func execCommand() *cli.Command {
	return &cli.Command{
		Name:      "exec",
		Usage:     "run a command in a running sandbox",
		ArgsUsage: "NAME [--] [COMMAND [ARG...]]",
		Description: `Without COMMAND, exec opens a login shell. Arguments reach the command exactly as
they are given: no shell comes in between. The exit code is the command's. Input
that the command does not read stays with whoever comes next, as in a loop of
"while read". What is typed into a terminal is the command's in any case.

EXAMPLES
   sandbox exec work -- git status
   sandbox exec --user root work -- apt-get install -y jq
   tar c src | sandbox exec work -- tar x -C /tmp`,
		Flags:        commandFlags(),
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			args := c.Args().Slice()
			if len(args) == 0 {
				return usage("sandbox exec needs the name of a sandbox: sandbox ls shows them")
			}
			command, err := parseCommand(c, args[1:])
			if err != nil {
				return &exitCode{exitRunFailure, err}
			}
			host, err := machine.Open()
			if err != nil {
				return &exitCode{exitRunFailure, err}
			}
			s, err := host.Get(args[0])
			if err != nil {
				return &exitCode{exitRunFailure, err}
			}
			return command.run(c.Context, s)
		},
	}
}

func startCommand() *cli.Command {
	return &cli.Command{
		Name:      "start",
		Usage:     "start a sandbox that is stopped",
		ArgsUsage: "NAME",
		Description: `It starts as it was made: same image, shares, ports and home. What was set by --env
was for a command of an earlier start, and is not set again.

EXAMPLES
   sandbox start work
   sandbox start --wait system work         when the image's services run, too`,
		Flags:        []cli.Flag{waitFlag(), timingsFlag()},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if err := checkWait(c); err != nil {
				return err
			}
			s, err := named(c)
			if err != nil {
				return err
			}
			if _, err := start(c, s, false, coldStart); err != nil {
				return err
			}
			fmt.Fprintln(c.App.Writer, s.Name)
			return nil
		},
	}
}
