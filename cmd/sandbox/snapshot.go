package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	units "github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/snapshot"
)

func snapshotCommand() *cli.Command {
	return &cli.Command{
		Name:  "snapshot",
		Usage: "save, restore, list and remove the states of a sandbox",
		Description: `A snapshot is what a running sandbox is at one moment: its memory with all that
runs in it, and its disk. The home and the shares are directories of this machine
and no part of it: what is in them stays as it is when a snapshot is restored.`,
		Subcommands: []*cli.Command{
			snapshotSaveCommand(), snapshotLsCommand(), snapshotInspectCommand(), snapshotRestoreCommand(), snapshotRmCommand(),
		},
	}
}

func snapshotSaveCommand() *cli.Command {
	return &cli.Command{
		Name:      "save",
		Usage:     "save the state of a running sandbox, which goes on",
		ArgsUsage: "NAME [TAG]",
		Description: `Without TAG, the snapshot is named by the date and time. It prints the tag, and on
the standard error how long the guest stood still.

EXAMPLES
   sandbox snapshot save work before-upgrade
   sandbox snapshot save --with-home work before-upgrade`,
		Flags:        []cli.Flag{&cli.BoolFlag{Name: "with-home", Usage: "copy the home, too, for which the guest stands still longer unless the file system can share blocks"}},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			s, tag, err := namedSnapshot(c, time.Now().Format("20060102-150405"))
			if err != nil {
				return err
			}
			snap, err := s.SaveSnapshot(c.Context, tag, machine.SaveOptions{WithHome: c.Bool("with-home")})
			if err != nil {
				return err
			}
			fmt.Fprintf(c.App.ErrWriter, "the sandbox stood still for %v; the snapshot takes %s\n",
				snap.Pause.Round(time.Millisecond), units.BytesSize(float64(snap.Used())))
			fmt.Fprintln(c.App.Writer, snap.Tag)
			return nil
		},
	}
}

func snapshotLsCommand() *cli.Command {
	return &cli.Command{
		Name:      "ls",
		Aliases:   []string{"list"},
		Usage:     "list the snapshots of a sandbox",
		ArgsUsage: "NAME",
		Description: `EXAMPLES
   sandbox snapshot ls work
   sandbox snapshot ls --json work | jq -r '.[].tag'`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print a JSON array"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print tags only"},
		},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			s, err := named(c)
			if err != nil {
				return err
			}
			all, broken := s.Snapshots()
			return errors.Join(printSnapshots(c, all), broken)
		},
	}
}

func printSnapshots(c *cli.Context, all []snapshot.Manifest) error {
	switch {
	case c.Bool("json"):
		return printJSON(c.App.Writer, append([]snapshot.Manifest{}, all...))
	case c.Bool("quiet"):
		for _, snap := range all {
			fmt.Fprintln(c.App.Writer, snap.Tag)
		}
		return nil
	}
	return printSnapshotTable(c.App.Writer, all, time.Now())
}

func printSnapshotTable(w io.Writer, all []snapshot.Manifest, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "TAG\tSAVED\tMEMORY\tDISK\tPAUSE")
	for _, snap := range all {
		disk := "-"
		if len(snap.Disk) > 0 {
			disk = units.BytesSize(float64(snap.DiskUsed()))
		}
		fmt.Fprintf(t, "%s\t%s ago\t%s\t%s\t%v\n", snap.Tag, strings.ToLower(units.HumanDuration(now.Sub(snap.Created))),
			units.BytesSize(float64(snap.MemoryUsed())), disk, snap.Pause.Round(time.Millisecond))
	}
	return t.Flush()
}

func snapshotInspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "show all that is known of a snapshot, as JSON",
		ArgsUsage: "NAME TAG",
		Description: `EXAMPLES
   sandbox snapshot inspect work before-upgrade | jq .needs`,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			s, tag, err := namedSnapshot(c, "")
			if err != nil {
				return err
			}
			snap, err := s.Snapshot(tag)
			if err != nil {
				return err
			}
			return printJSON(c.App.Writer, snap)
		},
	}
}

func snapshotRestoreCommand() *cli.Command {
	return &cli.Command{
		Name:      "restore",
		Usage:     "give a sandbox the state of a snapshot, running or not",
		ArgsUsage: "NAME TAG",
		Description: `What the guest has done since, in its memory and on its disk, is gone; what it wrote
to its home and to shares stays. Before anything is touched, the snapshot is
verified, and what it needs is compared with what there is. Commands that ran in
the sandbox end, those that are open from outside and those that were when the
snapshot was saved; what the guest itself had running goes on.

EXAMPLES
   sandbox snapshot restore work before-upgrade`,
		Flags:        []cli.Flag{&cli.BoolFlag{Name: "with-home", Usage: "restore the home, too, if the snapshot has it: what is in it now is gone"}},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			s, tag, err := namedSnapshot(c, "")
			if err != nil {
				return err
			}
			err = showStart("restoring "+s.Name, func(o machine.StartOptions) error {
				o.Until = machine.StageAgent
				_, err := s.Restore(c.Context, tag, c.Bool("with-home"), o)
				return err
			})
			if err != nil {
				return err
			}
			fmt.Fprintln(c.App.Writer, s.Name)
			return nil
		},
	}
}

func snapshotRmCommand() *cli.Command {
	return &cli.Command{
		Name:      "rm",
		Usage:     "remove snapshots of a sandbox",
		ArgsUsage: "NAME TAG...",
		Description: `EXAMPLES
   sandbox snapshot rm work before-upgrade
   sandbox snapshot rm work $(sandbox snapshot ls --quiet work)`,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if c.NArg() < 2 {
				return usage("sandbox snapshot rm needs the name of a sandbox and at least one tag: sandbox snapshot ls NAME shows them")
			}
			s, err := sandboxNamed(c.Args().First())
			if err != nil {
				return err
			}
			var errs []error
			for _, tag := range c.Args().Tail() {
				if err := s.RemoveSnapshot(tag); err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintln(c.App.Writer, tag)
			}
			return errors.Join(errs...)
		},
	}
}

// namedSnapshot opens the sandbox that the first argument names, and returns
// the tag that is the second one or, without that, otherwise.
func namedSnapshot(c *cli.Context, otherwise string) (*machine.Sandbox, string, error) {
	tag := c.Args().Get(1)
	if tag == "" {
		tag = otherwise
	}
	if c.NArg() < 1 || c.NArg() > 2 || tag == "" {
		return nil, "", usage("sandbox snapshot %s needs %s: sandbox ls and sandbox snapshot ls NAME show what there is", c.Command.Name, c.Command.ArgsUsage)
	}
	s, err := sandboxNamed(c.Args().First())
	return s, tag, err
}
