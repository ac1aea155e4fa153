package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/internal/trust"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/project"
	"github.com/sourcery-zone/sandbox/qemu"
)

// consenter tells whether what a project's file asks for counts.
type consenter func(project.Request) (bool, error)

func trustCommand() *cli.Command {
	return &cli.Command{
		Name:      "trust",
		Usage:     "let a project's sandbox.toml open what it asks for",
		ArgsUsage: "[DIRECTORY]",
		Description: `A project's file may ask for what opens something to a guest: allow, allow-host-port,
publish and secret, whose commands run on this machine. It counts once you have consented
to it here, of the file that is nearest to the directory, or to the working directory. What
is shown is what is remembered: when the file asks for something else, also after a guest
has written it, you are asked anew. Sandboxes that are there already keep what they were
made with.

What you have opened for a project when its guests asked (sandbox net ask) is shown and taken
back with it, and its file has no part in it.

EXAMPLES
   sandbox trust
   sandbox trust --ls
   sandbox trust --rm ../project`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "do not ask"},
			&cli.BoolFlag{Name: "ls", Usage: "show what was consented to, and what was opened for projects"},
			&cli.BoolFlag{Name: "rm", Usage: "take both back"},
		},
		OnUsageError: usageError,
		Action:       trustAction,
	}
}

func trustAction(c *cli.Context) error {
	if c.NArg() > 1 {
		return usage("sandbox trust takes one directory, not %d", c.NArg())
	}
	if c.Bool("ls") && (c.Bool("rm") || c.NArg() > 0) {
		return usage("sandbox trust --ls shows all projects: leave out the directory and --rm")
	}
	dirs, err := layout.DefaultDirs(os.Getenv, os.Getuid())
	if err != nil {
		return err
	}
	consents, answers := project.Consents{Dir: dirs.Consents()}, openAnswers(dirs)
	dir, err := filepath.Abs(c.Args().First())
	switch {
	case err != nil:
		return err
	case c.Bool("ls"):
		return listConsents(c.App.Writer, consents, answers)
	case c.Bool("rm"):
		return withdrawConsent(consents, answers, dir)
	}
	files, err := project.Load(trust.Caller(os.Getenv), dir, "", func(err error) { fmt.Fprintf(notes(), "sandbox: note: %s\n", sentences(err)) })
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("there is no %s that counts in %s or above it", project.FileName, dir)
	}
	for _, setting := range files[0].Settings {
		if setting.Err != nil {
			return setting.Err
		}
	}
	r := files[0].Request()
	switch {
	case len(r.Asks) == 0:
		fmt.Fprintf(notes(), "sandbox: %s asks for nothing that takes your consent\n", files[0].Source)
		return nil
	case consents.Has(r):
		showRequest(c.App.Writer, r)
		fmt.Fprintf(notes(), "sandbox: you have consented to this already\n")
		return nil
	case c.Bool("force"):
		showRequest(c.App.Writer, r)
		return consents.Give(r)
	case !isTerminal(os.Stdin) || !isTerminal(os.Stderr):
		showRequest(c.App.Writer, r)
		return usage("there is no terminal to ask on: look at what %s asks for, and add --force", shown(r.File()))
	}
	_, err = askConsent(os.Stdin, notes(), consents, r)
	return err
}

// insistOnConsent asks a person for what is unknown, and refuses it where there is none.
func insistOnConsent(r project.Request) (bool, error) {
	if !isTerminal(os.Stdin) || !isTerminal(os.Stderr) {
		return false, needsConsent(r)
	}
	consents, err := openConsents()
	if err != nil {
		return false, err
	}
	return askConsent(os.Stdin, notes(), consents, r)
}

// askConsent remembers the consent if it is given.
func askConsent(in io.Reader, out io.Writer, consents project.Consents, r project.Request) (bool, error) {
	showRequest(out, r)
	if !confirm(in, out, "Let its sandboxes have this, until the file asks for something else?") {
		return false, errors.New("nothing was opened: take out of the file what is not to be open")
	}
	return true, consents.Give(r)
}

func needsConsent(r project.Request) error {
	return fmt.Errorf("%s asks for what counts only with your consent: %s\nsandbox trust %s shows it and asks you", shown(r.File()), strings.Join(asFlags(r.Asks), " "), shown(r.Directory))
}

func showRequest(w io.Writer, r project.Request) {
	showAsks(w, shown(r.File())+" asks for", r.Asks)
}

func showAsks(w io.Writer, heading string, asks []project.Ask) {
	fmt.Fprintf(w, "%s:\n", heading)
	for _, flag := range asFlags(asks) {
		fmt.Fprintf(w, "   %s\n", flag)
	}
}

// asFlags are the values as one would type them.
func asFlags(asks []project.Ask) []string {
	var flags []string
	for _, a := range asks {
		flags = append(flags, fmt.Sprintf("--%s %s", a.Option, shown(a.Value)))
	}
	return flags
}

// shown is a text of a project as a shell takes it, if it is plain, and else with escapes:
// letters that look like others, and lines that look like ours, are seen.
func shown(text string) string {
	if quoted := strconv.QuoteToASCII(text); quoted != `"`+text+`"` {
		return quoted
	}
	return qemu.ShellQuote([]string{text})
}

func listConsents(w io.Writer, consents project.Consents, answers project.Answers) error {
	all, err := consents.List()
	for _, r := range all {
		showRequest(w, r)
	}
	return errors.Join(err, showAnswers(w, answers))
}

// withdrawConsent is for the project that is nearest, also if its directory is gone. What was opened for it goes with it.
func withdrawConsent(consents project.Consents, answers project.Answers, dir string) error {
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		dir = resolved
	}
	for at := dir; ; at = filepath.Dir(at) {
		asked := takenBack(consents.Withdraw(at), fmt.Sprintf("what %s asks for counts no longer", filepath.Join(at, project.FileName)))
		opened := takenBack(answers.Forget(at), fmt.Sprintf("what you have opened for %s is open to no later sandbox of it", at))
		if !errors.Is(asked, os.ErrNotExist) || !errors.Is(opened, os.ErrNotExist) {
			return errors.Join(missingIsFine(asked), missingIsFine(opened))
		}
		if at == filepath.Dir(at) {
			return fmt.Errorf("you have consented to nothing that is asked for in %s or above it: sandbox trust --ls shows what you have consented to", dir)
		}
	}
}

// takenBack notes what was taken back, and returns the error that came of it.
func takenBack(err error, what string) error {
	if err == nil {
		fmt.Fprintf(notes(), "sandbox: %s\n", what)
	}
	return err
}

func missingIsFine(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func openConsents() (project.Consents, error) {
	dirs, err := layout.DefaultDirs(os.Getenv, os.Getuid())
	return project.Consents{Dir: dirs.Consents()}, err
}
