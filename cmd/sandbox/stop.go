package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/internal/terminal"
	"github.com/sourcery-zone/sandbox/machine"
)

func stopCommand() *cli.Command {
	return &cli.Command{
		Name:      "stop",
		Usage:     "power sandboxes down",
		ArgsUsage: "NAME...",
		Description: `The guest is asked to power down, and is ended by force when it has not done so
after --time. Its home and configuration stay.

EXAMPLES
   sandbox stop work
   sandbox stop --time 2s work play`,
		Flags: []cli.Flag{
			timeFlag(),
		},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if err := checkTime(c); err != nil {
				return err
			}
			return eachNamed(c, func(ctx context.Context, s *machine.Sandbox) error {
				return s.Stop(ctx, c.Duration("time"))
			})
		},
	}
}

func timeFlag() cli.Flag {
	return &cli.DurationFlag{Name: "time", Aliases: []string{"t"}, Value: machine.DefaultGrace, Usage: "how `LONG` the guest may take to power down; 0 ends it at once"}
}

func checkTime(c *cli.Context) error {
	if c.Duration("time") < 0 {
		return usage("--time must not be negative")
	}
	return nil
}

func rmCommand() *cli.Command {
	return &cli.Command{
		Name:      "rm",
		Usage:     "remove sandboxes, with their homes",
		ArgsUsage: "NAME...",
		Description: `Shared directories are never touched. A sandbox with a clone of which commits were not
fetched stays, unless --force is given.

EXAMPLES
   sandbox rm work
   sandbox rm --force work                  also when it runs`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "end a running sandbox first, and lose commits that were not fetched"},
		},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			return eachNamed(c, func(ctx context.Context, s *machine.Sandbox) error {
				return s.Remove(ctx, c.Bool("force"))
			})
		},
	}
}

// eachNamed does something with every sandbox that the arguments name, all at
// once, and prints the names of those with which it went well.
func eachNamed(c *cli.Context, do func(context.Context, *machine.Sandbox) error) error {
	return forNamed(c, func(ctx context.Context, s *machine.Sandbox) (string, error) {
		return s.Name, do(ctx, s)
	})
}

// forNamed prints a line for each sandbox as soon as it is done. An error with
// one of them stops no other.
func forNamed(c *cli.Context, do func(context.Context, *machine.Sandbox) (line string, err error)) error {
	if c.NArg() == 0 {
		return usage("sandbox %s needs the name of at least one sandbox: sandbox ls shows them", c.Command.Name)
	}
	host, err := machine.Open()
	if err != nil {
		return err
	}
	var printing sync.Mutex
	var all sync.WaitGroup
	errs := make([]error, c.NArg())
	for i, name := range c.Args().Slice() {
		all.Go(func() {
			s, err := host.Get(name)
			var line string
			if err == nil {
				line, err = do(c.Context, s)
			}
			if err != nil {
				errs[i] = fmt.Errorf("%s %s: %w", c.Command.Name, name, err)
				return
			}
			printing.Lock()
			defer printing.Unlock()
			fmt.Fprintln(c.App.Writer, terminal.Line(line))
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
