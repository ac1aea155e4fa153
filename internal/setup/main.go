package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/internal/progress"
)

// exitManual is the exit status for "this is for you to install": different from a failure of ours.
const exitManual = 2

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newApp(os.Stdout, os.Stderr, progress.New(os.Stderr)).RunContext(ctx, os.Args); err != nil {
		fmt.Fprintf(os.Stderr, "setup: %v\n", err)
		stop()
		os.Exit(exitCode(err))
	}
}

func newApp(stdout, stderr io.Writer, report *progress.Reporter) *cli.App {
	command := func(set, usage string) *cli.Command {
		return &cli.Command{
			Name:  set,
			Usage: usage,
			Flags: []cli.Flag{&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "print what would be done, and do nothing"}},
			Action: func(c *cli.Context) error {
				if c.Args().Present() {
					return fmt.Errorf("%s takes no arguments, but %q was given", set, c.Args().First())
				}
				return setUp(c.Context, set, c.Bool("dry-run"), stdout, stderr, report)
			},
		}
	}
	return &cli.App{
		Name:      "setup",
		Usage:     "install what sandbox needs from the distribution, if it is missing",
		Writer:    stdout,
		ErrWriter: stderr,
		Commands: []*cli.Command{
			command("run", "what building the default image and running sandboxes take"),
			command("test", "the same, and what the tests take"),
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return fmt.Errorf("there is no set named %q: say run or test", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
		ExitErrHandler: func(*cli.Context, error) {}, // main prints, once
	}
}

// manualError lists what the user has to install.
type manualError struct {
	release Release
	items   []string
}

func (e *manualError) Error() string {
	return fmt.Sprintf("on %s, the following cannot be installed for you, and nothing was. Install it yourself, then run this again (Debian 12 or newer and Ubuntu 24.04 or newer are set up automatically):\n  - %s",
		e.release.Name, strings.Join(e.items, "\n  - "))
}

func exitCode(err error) int {
	if _, ok := errors.AsType[*manualError](err); ok {
		return exitManual
	}
	return 1
}

// setUp brings the machine to what set needs, or says what it would do.
func setUp(ctx context.Context, set string, dryRun bool, stdout, stderr io.Writer, report *progress.Reporter) error {
	arch, err := archOf(runtime.GOARCH)
	if err != nil {
		return err
	}
	release, err := readRelease()
	if err != nil {
		return err
	}
	needs := needsOf(set, release, arch)
	inventory := observe(ctx, append(needs[:len(needs):len(needs)], patchelf()))
	plan := makePlan(release, arch, needs, inventory)
	for _, note := range plan.Notes {
		fmt.Fprintf(stderr, "setup: note: %s\n", note)
	}
	if len(plan.Manual) > 0 {
		return &manualError{release, plan.Manual}
	}
	if plan.Empty() {
		fmt.Fprintf(stdout, "setup: nothing to install: %s\n", summary(needs, inventory))
		return nil
	}
	sources, err := readSources("/etc/apt")
	if err != nil {
		return err
	}
	var replace []string
	for _, b := range plan.Borrows {
		if _, err := os.Lstat(b.Dir()); err == nil {
			replace = append(replace, b.Dir())
		}
	}
	write := func(work string) (script, error) {
		return makeScript(plan, release, arch, sources, work, replace)
	}
	if dryRun {
		s, err := write(filepath.Join(os.TempDir(), "sandbox-setup"))
		if err != nil {
			return err
		}
		return s.print(stdout)
	}
	if err := carryOut(ctx, write, report); err != nil {
		return err
	}
	return confirm(ctx, release, needs, plan, stdout)
}

// carryOut runs the script that write makes for a temporary directory.
func carryOut(ctx context.Context, write func(work string) (script, error), report *progress.Reporter) error {
	work, err := os.MkdirTemp("", "sandbox-setup-")
	if err != nil {
		return fmt.Errorf("create a temporary directory for the set-up: %w", err)
	}
	defer os.RemoveAll(work)
	// apt downloads as a user of its own, who must be able to pass.
	if err := os.Chmod(work, 0o755); err != nil {
		return fmt.Errorf("open the temporary directory of the set-up to apt: %w", err)
	}
	s, err := write(work)
	if err != nil {
		return err
	}
	if err := s.prepare(); err != nil {
		return err
	}
	elevate, err := elevation(ctx)
	if err != nil {
		return err
	}
	return s.run(ctx, elevate, report)
}

// confirm looks again, after an installation: the distribution's packages may be older than what sandbox needs.
func confirm(ctx context.Context, release Release, needs []Need, plan Plan, stdout io.Writer) error {
	inventory := observe(ctx, needs)
	var short []string
	for _, need := range needs {
		if reason := need.Shortcoming(inventory[need.ID]); reason != "" {
			short = append(short, describe(release, need, reason))
		}
	}
	if len(short) > 0 {
		return fmt.Errorf("the packages of %s are installed, and this is still not enough:\n  - %s", release.Name, strings.Join(short, "\n  - "))
	}
	for _, b := range plan.Borrows {
		if err := b.check(ctx); err != nil {
			return err
		}
	}
	fmt.Fprintf(stdout, "setup: ready: %s\n", summary(needs, inventory))
	return nil
}

// summary names what was found, with versions where they matter.
func summary(needs []Need, inventory Inventory) string {
	var parts []string
	for _, need := range needs {
		part := string(need.ID)
		if need.Version != nil {
			part += " " + inventory[need.ID].Version.String()
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

// print shows the script in the form of a shell script, for people to read.
func (s script) print(w io.Writer) error {
	var b strings.Builder
	for _, dir := range s.Dirs {
		fmt.Fprintf(&b, "mkdir -p %s\n", quote([]string{dir}))
	}
	for _, file := range s.Files {
		fmt.Fprintf(&b, "# write %s:\n", file.Path)
		for line := range strings.Lines(file.Content) {
			b.WriteString(strings.TrimRight("#   "+line, " \n") + "\n")
		}
	}
	for _, step := range s.Steps {
		if step.Title != "" {
			fmt.Fprintf(&b, "# %s\n", step.Title)
		}
		if step.Dir != "" {
			fmt.Fprintf(&b, "cd %s; ", quote([]string{step.Dir}))
		}
		if step.Root {
			b.WriteString("sudo ")
		}
		b.WriteString(quote(step.Argv) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
