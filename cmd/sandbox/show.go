package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	units "github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/terminal"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/qemu"
)

func lsCommand() *cli.Command {
	return &cli.Command{
		Name:    "ls",
		Aliases: []string{"list", "ps"},
		Usage:   "list all sandboxes, whatever their state",
		Description: `The state is created (never started), starting, running, paused (with the
reason), stopping, stopped, crashed (with the reason) or broken (its files cannot
be read). A share is (replaced) when another directory has taken its place on this
machine, which sandbox inspect tells more about, and has (weak isolation) where the
machine does not let virtiofsd be confined.

EXAMPLES
   sandbox ls
   sandbox ls --filter status=running --filter status=starting
   sandbox ls --filter name='ci-*' --json`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "filter", Usage: "show those with `KEY=PATTERN` only: status, name or image; one of several patterns of a key is enough"},
			&cli.BoolFlag{Name: "json", Usage: "print a JSON array"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print names only"},
			&cli.BoolFlag{Name: "no-trunc", Usage: "print reasons and shares whole, even if the table is wider than the terminal"},
		},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			host, err := machine.Open()
			if err != nil {
				return err
			}
			all, err := host.List()
			if err != nil {
				return err
			}
			keep, err := parseFilters(c.StringSlice("filter"))
			if err != nil {
				return usage("%w", err)
			}
			infos := []machine.Info{}
			for _, s := range all {
				if info := s.Info(); keep(info) {
					infos = append(infos, info)
				}
			}
			switch {
			case c.Bool("json"):
				return printJSON(c.App.Writer, infos)
			case c.Bool("quiet"):
				for _, i := range infos {
					fmt.Fprintln(c.App.Writer, i.Name)
				}
				return nil
			}
			width := terminalWidth(os.Stdout)
			if c.Bool("no-trunc") {
				width = 0
			}
			return listing(infos, time.Now()).write(c.App.Writer, width)
		},
	}
}

// parseFilters makes one condition of all --filter flags: patterns of one key
// are alternatives, different keys must all hold.
func parseFilters(filters []string) (func(machine.Info) bool, error) {
	patterns := map[string][]string{}
	for _, f := range filters {
		key, pattern, ok := strings.Cut(f, "=")
		if _, err := path.Match(pattern, ""); !ok || err != nil || !slices.Contains([]string{"status", "name", "image"}, key) {
			return nil, fmt.Errorf("--filter is %q, but must be status=, name= or image= and a pattern such as ci-*", f)
		}
		patterns[key] = append(patterns[key], pattern)
	}
	return func(i machine.Info) bool {
		image := nameOfImage(i.Config.Image)
		for key, value := range map[string]string{"status": string(i.State.Status), "name": i.Name, "image": image} {
			matches := func(pattern string) bool { ok, _ := path.Match(pattern, value); return ok }
			if patterns[key] != nil && !slices.ContainsFunc(patterns[key], matches) {
				return false
			}
		}
		return true
	}, nil
}

// nameOfImage is what ls has of a reference: which of them it is, inspect says.
func nameOfImage(ref image.Ref) string { return cmp.Or(ref.Name, ref.Dir) }

// listing is the table of ls, of which reasons and shares may be long.
func listing(infos []machine.Info, now time.Time) table {
	t := table{rows: [][]string{{"NAME", "STATUS", "IMAGE", "MEMORY", "CPUS", "DISK", "SSH", "SHARES"}}, shrinks: []int{1, 7}}
	for _, i := range infos {
		image := nameOfImage(i.Config.Image)
		ssh := "-"
		if i.State.Status == machine.StatusRunning && i.State.SSHPort != 0 {
			ssh = fmt.Sprintf("127.0.0.1:%d", i.State.SSHPort)
		}
		t.rows = append(t.rows, []string{
			i.Name, describe(i.State, now), terminal.Line(image), fmt.Sprintf("%dM", i.Config.MemoryMiB), strconv.Itoa(i.Config.CPUs),
			describeDisk(i.Disk), ssh, describeShares(i),
		})
	}
	return t
}

// describeShares lists the shared directories, with what a user should know of
// one in parentheses.
func describeShares(i machine.Info) string {
	var shares []string
	for _, s := range i.Config.Shares {
		text := terminal.Line(s.Source)
		served, _ := i.Served(s)
		if served.Weak {
			text += " (weak isolation)"
		}
		if served.Changed != "" {
			text += " (replaced)"
		}
		shares = append(shares, text)
	}
	return strings.Join(shares, " ")
}

// describeDisk is a disk's used and virtual size, such as "1.2GiB/20GiB".
func describeDisk(d *machine.DiskUsage) string {
	if d == nil {
		return "-"
	}
	return units.BytesSize(float64(d.Used)) + "/" + units.BytesSize(float64(d.Virtual))
}

// describe is a state in a few words, such as "running 5 minutes".
func describe(st machine.State, now time.Time) string {
	switch st.Status {
	case machine.StatusRunning:
		return fmt.Sprintf("%s %s", st.Status, strings.ToLower(units.HumanDuration(now.Sub(st.Started))))
	case machine.StatusCrashed, machine.StatusBroken, machine.StatusPaused:
		first, _, _ := strings.Cut(st.Reason, "\n")
		return fmt.Sprintf("%s (%s)", st.Status, terminal.Line(first))
	}
	return string(st.Status)
}

func inspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "show everything about sandboxes as JSON",
		ArgsUsage: "NAME...",
		Description: `One NAME gives an object, several an array of objects. In the command line of QEMU,
numbers of descriptors that are not redirected stand for sockets and for the guest's
memory, which the supervisor passes on. What keeps QEMU from the rest of this machine
is in state.walls.

EXAMPLES
   sandbox inspect work
   sandbox inspect work play | jq '.[].state.status'
   sandbox inspect --qemu work              the command line of its QEMU`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "qemu", Usage: "print the exact QEMU command line of its last start"},
		},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if c.NArg() > 1 && !c.Bool("qemu") {
				return inspectAll(c)
			}
			s, err := named(c)
			if err != nil {
				return err
			}
			info := s.Info()
			if !c.Bool("qemu") {
				return printJSON(c.App.Writer, info)
			}
			if len(info.State.Argv) == 0 {
				return fmt.Errorf("%s has not been started yet, so there is no command line: start it with sandbox start %[1]s", s.Name)
			}
			_, err = fmt.Fprintln(c.App.Writer, qemu.ShellQuote(info.State.Argv)+qemu.Redirections(info.State.Files))
			return err
		},
	}
}

func inspectAll(c *cli.Context) error {
	host, err := machine.Open()
	if err != nil {
		return err
	}
	infos := []machine.Info{}
	var errs []error
	for _, name := range c.Args().Slice() {
		s, err := host.Get(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		infos = append(infos, s.Info())
	}
	return errors.Join(append(errs, printJSON(c.App.Writer, infos))...)
}

func logsCommand() *cli.Command {
	return &cli.Command{
		Name:      "logs",
		Usage:     "print a sandbox's console",
		ArgsUsage: "NAME",
		Description: `The guest decides what its console says. So characters that a terminal would obey
are shown as \x1b and the like, and colours are left out.

EXAMPLES
   sandbox logs work
   sandbox logs -f work                     until the sandbox ends
   sandbox logs --of supervisor work
   sandbox logs --raw work > console.log    byte for byte`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on as the console grows"},
			&cli.BoolFlag{Name: "raw", Usage: "print it byte for byte, although the guest can then control a terminal"},
			&cli.StringFlag{Name: "of", Value: "console", Usage: "whose log: `PROGRAM` console, supervisor, qemu or virtiofsd"},
		},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			s, err := named(c)
			if err != nil {
				return err
			}
			if c.Bool("raw") {
				return printLog(c, os.Stdout, s)
			}
			out := results()
			return errors.Join(printLog(c, out, s), out.Close())
		},
	}
}

func printLog(c *cli.Context, w io.Writer, s *machine.Sandbox) error {
	of := c.String("of")
	if of == "console" {
		return s.Console(c.Context, w, c.Bool("follow"))
	}
	if c.Bool("follow") {
		return usage("only the console can be followed: leave out --follow, or --of %s", of)
	}
	name, ok := map[string]string{
		"supervisor": layout.SupervisorLog, "qemu": layout.QEMULog, "virtiofsd": layout.VirtiofsdLog,
	}[of]
	if !ok {
		return usage("there is no log of %q: use console, supervisor, qemu or virtiofsd", of)
	}
	f, err := os.Open(s.Files().Log(name))
	if os.IsNotExist(err) {
		return nil // never started
	}
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}
