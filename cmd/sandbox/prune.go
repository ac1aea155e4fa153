package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/internal/terminal"
	"github.com/sourcery-zone/sandbox/machine"
)

func pruneCommand() *cli.Command {
	return &cli.Command{
		Name:  "prune",
		Usage: "remove all sandboxes that are stopped, crashed or broken, with their homes",
		Description: `Shared directories and images are never touched: sandbox image gc removes images
that no sandbox needs.

EXAMPLES
   sandbox prune                            shows them and asks
   sandbox prune --force`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "do not ask"},
		},
		OnUsageError: usageError,
		Action:       pruneAction,
	}
}

func pruneAction(c *cli.Context) error {
	host, err := machine.Open()
	if err != nil {
		return err
	}
	leftovers, err := host.Leftovers(c.Context)
	if err != nil {
		return err
	}
	if len(leftovers) == 0 {
		fmt.Fprintln(notes(), "sandbox: there is nothing to remove")
		return nil
	}
	if !c.Bool("force") {
		if !isTerminal(os.Stdin) || !isTerminal(os.Stderr) {
			return usage("sandbox prune would remove %d sandboxes with their homes, and there is no terminal to ask on: add --force", len(leftovers))
		}
		if err := listLeftovers(notes(), leftovers); err != nil {
			return err
		}
		if !confirm(os.Stdin, notes(), fmt.Sprintf("Remove %d sandboxes with their homes?", len(leftovers))) {
			return errors.New("nothing was removed")
		}
	}
	return prune(c.App.Writer, leftovers)
}

func listLeftovers(w io.Writer, leftovers []machine.Leftover) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "NAME\tSTATUS\tSIZE")
	for _, l := range leftovers {
		fmt.Fprintf(t, "%s\t%s\t%s\n", l.Sandbox.Name, describe(l.State, time.Now()), bytesText(l.Bytes))
	}
	return t.Flush()
}

// confirm takes nothing but a clear yes for one.
func confirm(in io.Reader, out io.Writer, question string) bool {
	fmt.Fprintf(out, "%s [y/N] ", terminal.Line(question))
	line, _ := bufio.NewReader(in).ReadString('\n')
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes"
}

func prune(w io.Writer, leftovers []machine.Leftover) error {
	var freed int64
	var errs []error
	for _, l := range leftovers {
		removed, err := l.Prune()
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("removing %s: %w", l.Sandbox.Name, err))
		case removed:
			freed += l.Bytes
			fmt.Fprintln(w, l.Sandbox.Name)
		}
	}
	fmt.Fprintf(notes(), "sandbox: %s freed\n", bytesText(freed))
	return errors.Join(errs...)
}
