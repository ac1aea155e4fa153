package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/internal/terminal"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

func mountCommand() *cli.Command {
	return &cli.Command{
		Name:      "mount",
		Usage:     "share a directory with a sandbox that is there",
		ArgsUsage: "NAME HOST[:GUEST][:OPTION,...]",
		Description: `The directory is named and checked as with run --share. A sandbox that runs has it at
once, and both one that runs and one that does not have it at each later start. What was
mounted is printed. Snapshots and forks have it, too.

EXAMPLES
   sandbox mount work ~/src/library
   sandbox mount work ~/data:data:ro`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "allow-dangerous-share", Usage: "share even /, a whole home, or a directory of keys"},
		},
		OnUsageError: usageError,
		Action:       mountAction,
	}
}

func mountAction(c *cli.Context) error {
	if c.NArg() != 2 {
		return usage("sandbox mount needs the name of a sandbox and a directory to share, such as ~/src/app:app:ro")
	}
	s, err := sandboxNamed(c.Args().First())
	if err != nil {
		return err
	}
	host, err := machine.Open()
	if err != nil {
		return err
	}
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	share, err := virtiofs.ParseShare(c.Args().Get(1), cwd)
	if err != nil {
		return usage("%w", err)
	}
	rules := host.ShareRules()
	rules.AllowDangerous = c.Bool("allow-dangerous-share")
	if share, err = share.Admit(rules); err != nil {
		return allowHint(err)
	}
	mounted, err := s.Mount(c.Context, share)
	if err != nil {
		return fmt.Errorf("mount %s: %w", s.Name, err)
	}
	for _, note := range mounted.Notes {
		fmt.Fprintf(notes(), "sandbox: %s\n", note)
	}
	noteLater(s, "mounted")
	fmt.Fprintln(c.App.Writer, mounted.Share)
	return nil
}

// noteLater tells that a sandbox which does not run notices a change when it starts.
func noteLater(s *machine.Sandbox, what string) {
	if st := s.State(); !st.Live() {
		fmt.Fprintf(notes(), "sandbox: %s is %s: it is %s at the next start\n", s.Name, st.Status, what)
	}
}

func umountCommand() *cli.Command {
	return &cli.Command{
		Name:      "umount",
		Aliases:   []string{"unmount"},
		Usage:     "take a shared directory from a sandbox",
		ArgsUsage: "NAME GUEST",
		Description: `GUEST is where the guest has it, as sandbox mounts shows; a relative path begins at the
home of its user. While programs in the guest use it, they are named and it stays; with
--force it goes all the same, and they find that it is gone. The home stays always.

EXAMPLES
   sandbox umount work data
   sandbox umount --force work /srv/data`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "also while programs in the guest use it"},
		},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return usage("sandbox umount needs the name of a sandbox and a place in it: sandbox mounts NAME shows them")
			}
			s, err := sandboxNamed(c.Args().First())
			if err != nil {
				return err
			}
			share, err := s.Unmount(c.Context, c.Args().Get(1), c.Bool("force"))
			if err != nil {
				return fmt.Errorf("umount %s: %w", s.Name, err)
			}
			if share.CopyOnWrite {
				fmt.Fprintf(notes(), "sandbox: what the guest has changed there stays on its disk: sandbox mount %s %s brings it back\n",
					s.Name, qemu.ShellQuote([]string{share.String()}))
			}
			noteLater(s, "gone")
			return nil
		},
	}
}

// mountShown is a line of mounts: a share, and how it is served.
type mountShown struct {
	virtiofs.Share
	Mounted bool                 `json:"mounted"` // the guest has it now
	Served  *machine.ServedShare `json:"served,omitempty"`
}

func mountsCommand() *cli.Command {
	return &cli.Command{
		Name:      "mounts",
		Usage:     "list the directories that are shared with a sandbox",
		ArgsUsage: "NAME",
		Description: `A sandbox that does not run has them at its next start.

EXAMPLES
   sandbox mounts work
   sandbox mounts --json work | jq -r '.[].source'`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print a JSON array"},
		},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			s, err := named(c)
			if err != nil {
				return err
			}
			info := s.Info()
			shown := []mountShown{}
			t := table{rows: [][]string{{"HOST", "GUEST", "OPTIONS", "STATE"}}, shrinks: []int{0, 1}}
			for _, share := range info.Config.Shares {
				m := mountShown{Share: share}
				state := "at the next start"
				if served, ok := info.Served(share); ok {
					m.Mounted, m.Served = true, &served
					state = "mounted"
					if served.Weak {
						state += " (weak isolation)"
					}
					if served.Changed != "" {
						state += " (replaced)"
					}
				}
				shown = append(shown, m)
				t.rows = append(t.rows, []string{terminal.Line(share.Source), terminal.Line(share.Target), strings.Join(share.Options(), ","), state})
			}
			if c.Bool("json") {
				return printJSON(c.App.Writer, shown)
			}
			return t.write(c.App.Writer, terminalWidth(os.Stdout))
		},
	}
}
