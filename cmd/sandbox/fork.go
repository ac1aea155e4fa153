package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

func forkCommand() *cli.Command {
	return &cli.Command{
		Name:      "fork",
		Usage:     "make new sandboxes that go on from the state of another one",
		ArgsUsage: "NAME[@TAG]",
		Description: `The forks run at once, with all that ran in the other sandbox, from its snapshot
TAG or else from what it is now; it goes on itself. Each has an identity, a disk and
a copy of the home of its own, a clock that is right and random numbers that no other
has. Shares are the same directories for all, and read-only in the forks: guests see
nothing of each other's locks, and programs such as git and SQLite lose data when two
of them write. Of a copy-on-write share each has its own. Published ports are published by free ones, which sandbox ls shows. The
names of the forks are printed when they are ready.

EXAMPLES
   sandbox fork work
   sandbox fork --count 10 --name try work@installed
   sandbox fork --rm --home empty work`,
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "count", Aliases: []string{"n"}, Value: 1, Usage: "make this `NUMBER` of forks"},
			&cli.StringFlag{Name: "name", Usage: "`NAME` of the fork; of several, NAME-1, NAME-2 and so on (default: that of the other sandbox with -fork)"},
			&cli.StringFlag{Name: "home", Value: "copy", Usage: "`WHAT` the forks' homes are: copy or empty"},
			&cli.StringFlag{Name: "shares", Value: "ro", Usage: "`HOW` the forks may use the shares: ro (only read them) or same (as the other sandbox, while only one of all writes)"},
			&cli.BoolFlag{Name: "rm", Usage: "remove a fork when it stops"},
		},
		OnUsageError: usageError,
		Action:       fork,
	}
}

// maxForks keeps a slip of the keyboard from taking the machine.
const maxForks = 256

func fork(c *cli.Context) error {
	ctx := c.Context
	if count := c.Int("count"); count < 1 || count > maxForks {
		return usage("--count is %d, but must be from 1 to %d", count, maxForks)
	}
	if home := c.String("home"); home != "copy" && home != "empty" {
		return usage("--home is %q, but must be copy or empty", home)
	}
	if shares := c.String("shares"); shares != "ro" && shares != "same" {
		return usage("--shares is %q, but must be ro or same", shares)
	}
	if c.NArg() != 1 {
		return usage("sandbox fork needs the name of one sandbox, or NAME@TAG for one of its snapshots: sandbox ls and sandbox snapshot ls NAME show them")
	}
	name, tag, tagged := strings.Cut(c.Args().First(), "@")
	if tagged && tag == "" {
		return usage("a tag is missing after %s@: sandbox snapshot ls %[1]s shows those that there are", name)
	}
	host, err := machine.Open()
	if err != nil {
		return err
	}
	parent, err := host.Get(name)
	if err != nil {
		return err
	}
	names := forkNames(c, name)
	var taken []error
	for _, name := range names {
		taken = append(taken, host.CheckFree(name))
	}
	if err := errors.Join(taken...); err != nil { // before anything is saved
		return err
	}
	options := machine.ForkOptions{Writable: c.String("shares") == "same", Remove: c.Bool("rm")}
	if config, err := parent.Config(); err == nil && !options.Writable && slices.ContainsFunc(config.Shares, func(s virtiofs.Share) bool { return !s.ReadOnly }) {
		fmt.Fprintf(notes(), "sandbox: note: the forks can read the shares of %s and not write to them; with --shares same they can, and must not do so at the same time\n", name)
	}
	secrets, err := parent.Secrets(ctx)
	if err != nil {
		return err
	}
	from, err := parent.Forkable(ctx, tag, c.String("home") == "empty")
	if err != nil {
		return err
	}
	forks, err := makeForks(ctx, from, names, options)
	err = errors.Join(err, from.Close())
	if err != nil {
		return errors.Join(err, removeForks(ctx, forks))
	}
	return startForks(c, forks, secrets)
}

func forkNames(c *cli.Context, parent string) []string {
	base := c.String("name")
	if base == "" {
		base = parent + "-fork"
	}
	if c.Int("count") == 1 {
		return []string{base}
	}
	var names []string
	for i := range c.Int("count") {
		names = append(names, base+"-"+strconv.Itoa(i+1))
	}
	return names
}

func makeForks(ctx context.Context, from *machine.Forkable, names []string, o machine.ForkOptions) ([]*machine.Sandbox, error) {
	var forks []*machine.Sandbox
	for i, name := range names {
		o.Name, o.Last = name, i == len(names)-1
		s, err := from.Fork(ctx, o)
		if err != nil {
			return forks, err
		}
		forks = append(forks, s)
	}
	return forks, nil
}

// startForks starts all forks at once, and removes those that do not start.
func startForks(c *cli.Context, forks []*machine.Sandbox, secrets machine.Secrets) error {
	failed := make([]error, len(forks))
	err := showStart(fmt.Sprintf("starting %d forks", len(forks)), func(o machine.StartOptions) error {
		o.Secrets = secrets
		o.Until, o.Stage = machine.StageAgent, nil // the stages of several would be a muddle
		var starting errgroup.Group
		for i, s := range forks {
			if i > 0 {
				o.Note = nil // what the first one is told holds for all
			}
			starting.Go(func() error {
				_, failed[i] = s.Start(c.Context, o)
				return nil
			})
		}
		_ = starting.Wait()
		return errors.Join(failed...)
	})
	var dead []*machine.Sandbox
	for i, s := range forks {
		if failed[i] != nil {
			dead = append(dead, s)
			continue
		}
		fmt.Fprintln(c.App.Writer, s.Name)
	}
	return errors.Join(err, removeForks(c.Context, dead))
}

func removeForks(ctx context.Context, forks []*machine.Sandbox) error {
	var errs []error
	for _, s := range forks {
		errs = append(errs, s.Remove(context.WithoutCancel(ctx), true))
	}
	return errors.Join(errs...)
}
