package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

func tryCommand() *cli.Command {
	return &cli.Command{
		Name:      "try",
		Usage:     "run a command in several forks of a sandbox, and compare what comes of it",
		ArgsUsage: "NAME [--] COMMAND [ARG...]",
		Description: `The sandbox needs a copy-on-write share (--share DIRECTORY:cow), of which each fork has its own
workspace. The command runs in that directory; it finds the number of its fork in the variable
SANDBOX_TRY. --check runs a line of the shell afterwards. Forks in which one of the two failed
are removed, unless --keep is given. sandbox diff and sandbox apply show and take what another
has made; sandbox rm --force removes it.

EXAMPLES
   sandbox try -n 5 --check 'npm test' work -- claude -p 'make the tests pass'
   sandbox apply work-try-3`,
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "count", Aliases: []string{"n"}, Value: 3, Usage: "make this `NUMBER` of forks"},
			&cli.IntFlag{Name: "jobs", Aliases: []string{"j"}, Value: 2, Usage: "let this `NUMBER` of them run at the same time"},
			&cli.StringFlag{Name: "check", Usage: "run `COMMAND`, a line of the shell, after the command, which says by its exit code whether it is good"},
			&cli.BoolFlag{Name: "keep", Usage: "keep the forks in which something failed too"},
		},
		OnUsageError: usageError,
		Action:       try,
	}
}

// attempt is one fork with what became of it.
type attempt struct {
	sandbox        *machine.Sandbox
	number         int
	err            error // of the fork itself, and not of what ran in it
	exit, check    int   // exit codes; -1: it did not run
	files          int
	added, removed int // lines
	took           time.Duration
}

func (a *attempt) good() bool { return a.err == nil && a.exit == 0 && a.check <= 0 }

func try(c *cli.Context) (err error) {
	args := c.Args().Slice()
	switch {
	case len(args) < 2:
		return usage("sandbox try needs the name of a sandbox and a command")
	case c.Int("count") < 1 || c.Int("count") > maxForks:
		return usage("--count is %d, but must be from 1 to %d", c.Int("count"), maxForks)
	case c.Int("jobs") < 1:
		return usage("--jobs is %d, but must be 1 or more", c.Int("jobs"))
	}
	host, err := machine.Open()
	if err != nil {
		return err
	}
	parent, err := host.Get(args[0])
	if err != nil {
		return err
	}
	spaces, err := parent.Workspaces(c.Context, false) // or there is nothing that could be compared
	if err != nil {
		return err
	}
	dir := spaces.Shares[0].Config.Target
	if err := spaces.Close(); err != nil {
		return err
	}
	attempts, err := makeAttempts(c, host, parent)
	if err != nil {
		return err
	}
	secrets, err := parent.Secrets(c.Context)
	if err != nil {
		return err
	}
	var running errgroup.Group
	running.SetLimit(c.Int("jobs"))
	for _, a := range attempts {
		running.Go(func() error {
			a.run(c.Context, dir, args[1:], c.String("check"), secrets)
			if !a.good() && !c.Bool("keep") {
				a.err = errors.Join(a.err, a.sandbox.Remove(context.WithoutCancel(c.Context), true))
			}
			return nil
		})
	}
	_ = running.Wait()
	if err := showAttempts(c.App.Writer, attempts); err != nil {
		return err
	}
	var errs []error
	good := 0
	for _, a := range attempts {
		if a.err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", a.sandbox.Name, a.err))
		}
		if a.good() {
			good++
		}
	}
	if good == 0 {
		errs = append(errs, errors.New("none of the attempts is good"))
	}
	return errors.Join(errs...)
}

// makeAttempts makes the forks, of which none runs yet.
func makeAttempts(c *cli.Context, host *machine.Host, parent *machine.Sandbox) ([]*attempt, error) {
	var names []string
	var taken []error
	for i := range c.Int("count") {
		names = append(names, parent.Name+"-try-"+strconv.Itoa(i+1))
		taken = append(taken, host.CheckFree(names[i]))
	}
	if err := errors.Join(taken...); err != nil {
		return nil, err
	}
	from, err := parent.Forkable(c.Context, "", false)
	if err != nil {
		return nil, err
	}
	forks, err := makeForks(c.Context, from, names, machine.ForkOptions{})
	if err = errors.Join(err, from.Close()); err != nil {
		return nil, errors.Join(err, removeForks(c.Context, forks))
	}
	var attempts []*attempt
	for i, s := range forks {
		attempts = append(attempts, &attempt{sandbox: s, number: i + 1, exit: -1, check: -1})
	}
	return attempts, nil
}

// run starts the fork, runs the command and the check, with what they say in a log, and looks at what has changed.
func (a *attempt) run(ctx context.Context, dir string, argv []string, check string, secrets machine.Secrets) {
	began := time.Now()
	defer func() { a.took = time.Since(began) }()
	if _, a.err = a.sandbox.Start(ctx, machine.StartOptions{Secrets: secrets, Until: machine.StageAgent}); a.err != nil {
		return
	}
	log, err := os.OpenFile(a.sandbox.Files().Log(layout.TryLog), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		a.err = err
		return
	}
	defer log.Close()
	client, err := a.sandbox.Dial(ctx)
	if err != nil {
		a.err = err
		return
	}
	defer client.Close()
	code := func(argv ...string) (int, error) {
		cmd := client.Command(ctx, argv...)
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
		cmd.Env = []string{"SANDBOX_TRY=" + strconv.Itoa(a.number)}
		err := cmd.Run()
		if exit, ok := errors.AsType[*agent.ExitError](err); ok {
			return exit.Code, nil
		}
		return 0, err
	}
	if a.exit, a.err = code(argv...); a.err == nil && a.exit == 0 && check != "" {
		a.check, a.err = code("/bin/sh", "-c", check)
	}
	if a.err == nil {
		a.err = a.compare(ctx)
	}
}

// compare counts what the fork has otherwise than this machine.
func (a *attempt) compare(ctx context.Context) (err error) {
	spaces, err := a.sandbox.Workspaces(ctx, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, spaces.Close()) }()
	for _, s := range spaces.Shares {
		changes, err := s.Changes(ctx)
		if err != nil {
			return err
		}
		for _, change := range changes {
			p, text, err := seen(ctx, changedShare{Workspace: s}, change)
			if changing(err) { // by what the command has left running
				continue
			}
			if err != nil {
				return err
			}
			if p.Type() != "directory" {
				a.files++
			}
			a.added, a.removed = a.added+text.Added, a.removed+text.Removed
		}
	}
	return nil
}

func showAttempts(w io.Writer, attempts []*attempt) error {
	t := table{rows: [][]string{{"SANDBOX", "EXIT", "CHECK", "FILES", "LINES", "TIME"}}}
	number := func(code int) string {
		if code < 0 {
			return "-"
		}
		return strconv.Itoa(code)
	}
	for _, a := range attempts {
		t.rows = append(t.rows, []string{
			a.sandbox.Name, number(a.exit), number(a.check), strconv.Itoa(a.files), fmt.Sprintf("+%d -%d", a.added, a.removed), a.took.Round(time.Second).String(),
		})
	}
	return t.write(w, 0)
}
