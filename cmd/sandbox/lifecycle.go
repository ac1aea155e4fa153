package main

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/machine"
)

func killCommand() *cli.Command {
	return &cli.Command{
		Name:      "kill",
		Usage:     "end sandboxes at once",
		ArgsUsage: "NAME...",
		Description: `The guest is not asked, as if its power had failed: what it had not yet written
is lost. Home and configuration stay. sandbox stop is the orderly way.

EXAMPLES
   sandbox kill work`,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			return eachNamed(c, func(ctx context.Context, s *machine.Sandbox) error { return s.Kill(ctx) })
		},
	}
}

func restartCommand() *cli.Command {
	return &cli.Command{
		Name:      "restart",
		Usage:     "stop a sandbox and start it again",
		ArgsUsage: "NAME",
		Description: `A sandbox that does not run is only started.

EXAMPLES
   sandbox restart work
   sandbox restart --time 0 --wait system work`,
		Flags:        []cli.Flag{timeFlag(), waitFlag(), timingsFlag()},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if err := checkTime(c); err != nil {
				return err
			}
			if err := checkWait(c); err != nil {
				return err
			}
			s, err := named(c)
			if err != nil {
				return err
			}
			if config, err := s.Config(); err == nil && config.Remove {
				return fmt.Errorf("%s was made with --rm: it is removed when it stops, so it cannot be restarted", s.Name)
			}
			secrets, err := s.Secrets(c.Context)
			if err != nil {
				return err
			}
			if err := s.Stop(c.Context, c.Duration("time")); err != nil {
				return err
			}
			if _, err := start(c, s, false, starter(coldStart).with(secrets)); err != nil {
				return err
			}
			fmt.Fprintln(c.App.Writer, s.Name)
			return nil
		},
	}
}

func waitCommand() *cli.Command {
	return &cli.Command{
		Name:      "wait",
		Usage:     "wait until sandboxes do not run",
		ArgsUsage: "NAME...",
		Description: `For each sandbox, one line says how it ended. The exit code is 0 when all of them
were stopped or powered themselves off, 1 when one crashed, and 0 for one that is
gone by then, as those made with --rm are.

EXAMPLES
   sandbox wait work && echo "in good order"`,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			var crashed atomic.Bool
			err := forNamed(c, func(ctx context.Context, s *machine.Sandbox) (string, error) {
				line, good, err := awaitEnd(ctx, s)
				if err == nil && !good {
					crashed.Store(true)
				}
				return line, err
			})
			if err == nil && crashed.Load() {
				return &exitCode{exitFailure, nil} // the lines say it all
			}
			return err
		},
	}
}

// awaitEnd says in a line how the sandbox ended, and whether that was in good
// order.
func awaitEnd(ctx context.Context, s *machine.Sandbox) (line string, good bool, err error) {
	if err := s.Wait(ctx); err != nil {
		return "", false, err
	}
	end := s.State()
	if !s.Exists() {
		return s.Name + " removed", true, nil
	}
	line = fmt.Sprintf("%s %s", s.Name, end.Status)
	if end.Reason != "" {
		line += ": " + end.Reason
	}
	return line, end.Status != machine.StatusCrashed && end.Status != machine.StatusBroken, nil
}

func renameCommand() *cli.Command {
	return &cli.Command{
		Name:      "rename",
		Usage:     "give a sandbox that does not run another name",
		ArgsUsage: "NAME NEW-NAME",
		Description: `The new name is the guest's host name from the next start on.

EXAMPLES
   sandbox rename brave-otter work`,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return usage("sandbox rename needs two names, the present one and the new one")
			}
			host, err := machine.Open()
			if err != nil {
				return err
			}
			s, err := host.Get(c.Args().First())
			if err != nil {
				return err
			}
			if s, err = s.Rename(c.Args().Get(1)); err != nil {
				return err
			}
			fmt.Fprintln(c.App.Writer, s.Name)
			return nil
		},
	}
}
