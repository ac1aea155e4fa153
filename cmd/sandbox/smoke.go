package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/hostdir"
	"github.com/sourcery-zone/sandbox/internal/progress"
	"github.com/sourcery-zone/sandbox/internal/trust"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/smoke"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// defaultSmokeTimeout is long enough for the services of a large NixOS guest
// under emulation, of which two minutes and more have been reported
// (olafkfreund/nixarchy#304): a slow machine must not make an image look bad.
const defaultSmokeTimeout = 10 * time.Minute

func smokeCommand() *cli.Command {
	return &cli.Command{
		Name:      "smoke",
		Usage:     "boot images and check that sandboxes made from them work",
		ArgsUsage: "[IMAGE...]",
		Description: `IMAGE is the name of an installed image, or the directory of one that is not
installed (written with a slash, such as ./result); without any, the default
image is booted. Each boot waits until commands can run and services are up,
checks agent, clock, entropy, home, a share, network, ssh and failed units, runs
your own checks, and powers the guest down.

The exit code is 0 when every check passed or had nothing to check, 1 when an
image is bad, and 125 when this machine could not find out.

EXAMPLES
   sandbox smoke
   sandbox smoke --check net='curl -sf https://example.com' ./result
   sandbox smoke --checks ci/checks --junit smoke.xml --artifacts logs
   sandbox smoke --repeat 20 --jobs 4 --json smoke.json`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "check", Usage: "also run a shell command in the guest, as `NAME=COMMAND`, which must succeed; repeatable"},
			&cli.StringFlag{Name: "checks", Usage: "also run each executable in `DIR`, which the guest sees read-only"},
			&cli.StringFlag{Name: "junit", Usage: "write the results as JUnit XML to `FILE`"},
			&cli.StringFlag{Name: "json", Usage: "write the results as JSON to `FILE`"},
			&cli.StringFlag{Name: "artifacts", Usage: "keep logs and journal of each boot that does not pass below `DIR`"},
			&cli.DurationFlag{Name: "timeout", Value: defaultSmokeTimeout, EnvVars: []string{"SANDBOX_TIMEOUT"}, Usage: "how `LONG` a guest may take until its services run, and how long each check"},
			&cli.IntFlag{Name: "repeat", Value: 1, Usage: "boot each image this `NUMBER` of times"},
			&cli.IntFlag{Name: "jobs", Value: 1, Usage: "run this `NUMBER` of guests at once"},
		},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			err := smokeAction(c)
			if _, coded := errors.AsType[*exitCode](err); err == nil || coded {
				return err
			}
			return &exitCode{exitRunFailure, err}
		},
	}
}

func smokeAction(c *cli.Context) error {
	host, err := machine.Open()
	if err != nil {
		return err
	}
	o, err := smokeOptions(c, host)
	if err != nil {
		return usage("%w", err)
	}
	copies, err := os.MkdirTemp(host.Dirs.Cache, "smoke-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(copies)
	targets, err := smokeTargets(c.Context, host, copies, c.Args().Slice())
	if err != nil {
		return err
	}
	var report smoke.Report
	outputs, err := openOutputs(map[string]func(io.Writer) error{
		c.String("junit"): func(w io.Writer) error { return report.WriteJUnit(w) },
		c.String("json"):  func(w io.Writer) error { return report.WriteJSON(w) },
	})
	if err != nil {
		return err
	}
	report = smoke.Run(c.Context, host, targets, o)
	if err := errors.Join(report.WriteTable(c.App.Writer), outputs.write()); err != nil {
		return err
	}
	return smokeExit(report.Outcome)
}

// smokeExit is how the program ends; what was found is in the table.
func smokeExit(o smoke.Outcome) error {
	switch o {
	case smoke.Failed:
		return &exitCode{exitFailure, errors.New("a check failed: the image is bad")}
	case smoke.Unfit:
		return &exitCode{exitRunFailure, errors.New("this machine could not find out whether the image is good: sandbox doctor checks the machine")}
	}
	return nil
}

func smokeOptions(c *cli.Context, host *machine.Host) (smoke.Options, error) {
	o := smoke.Options{
		Timeout: c.Duration("timeout"), Repeat: c.Int("repeat"), Jobs: c.Int("jobs"), Artifacts: c.String("artifacts"),
		Progress: progress.New(os.Stderr),
		Note:     func(note string) { fmt.Fprintf(notes(), "sandbox: note: %s\n", note) },
	}
	if o.Jobs > 1 {
		o.Progress = progress.NewPlain(os.Stderr) // several bars would share one line
	}
	for _, spec := range c.StringSlice("check") {
		check, err := smoke.ParseCheck(spec)
		if err != nil {
			return o, err
		}
		o.Checks = append(o.Checks, check)
	}
	if dir := c.String("checks"); dir != "" {
		checks, share, err := checksIn(host, dir)
		if err != nil {
			return o, err
		}
		o.Checks, o.CheckDir = append(o.Checks, checks...), share
	}
	if junit := c.String("junit"); junit != "" && junit == c.String("json") {
		return o, fmt.Errorf("--junit and --json both name %s: give each a file of its own", junit)
	}
	return o, o.Validate()
}

// checksIn reads a directory of checks, and makes sure that it may be shared.
func checksIn(host *machine.Host, dir string) ([]smoke.Check, *virtiofs.Share, error) {
	source, err := hostdir.Resolve(dir)
	if err != nil {
		return nil, nil, err
	}
	share, err := virtiofs.Share{Source: source, ReadOnly: true}.Admit(host.ShareRules())
	if err != nil {
		return nil, nil, err
	}
	checks, err := smoke.FindChecks(source)
	return checks, &share, err
}

// smokeTargets finds the images that the arguments name, and copies those that
// somebody else can change to the directory copies. A directory that holds no
// usable image is a finding of the test and no error.
func smokeTargets(ctx context.Context, host *machine.Host, copies string, args []string) ([]smoke.Target, error) {
	if len(args) == 0 {
		args = []string{""}
	}
	var targets []smoke.Target
	var errs []error
	for i, arg := range args {
		target, err := smokeTarget(ctx, host, filepath.Join(copies, strconv.Itoa(i)), arg)
		targets, errs = append(targets, target), append(errs, err)
	}
	return targets, errors.Join(errs...)
}

func smokeTarget(ctx context.Context, host *machine.Host, copied, arg string) (smoke.Target, error) {
	if !image.IsDirectory(arg) {
		img, err := host.Image(image.ParseRef(arg))
		if err != nil {
			if info, statErr := os.Stat(arg); statErr == nil && info.IsDir() {
				err = fmt.Errorf("%w; for the directory of that name write ./%s", err, arg)
			}
			return smoke.Target{}, err
		}
		return smoke.Target{Image: img, Ref: img.Exact()}, nil
	}
	dir, err := filepath.Abs(arg)
	if err == nil {
		_, err = os.Stat(dir)
	}
	if err != nil {
		return smoke.Target{}, fmt.Errorf("the image %s cannot be read: %w", arg, err)
	}
	img, err := host.Image(image.Ref{Dir: dir})
	if err == nil && !ownImage(img) {
		if err := os.Mkdir(copied, 0o700); err != nil {
			return smoke.Target{}, err
		}
		dir = copied
		img, err = image.Copy(ctx, img.Dir, dir)
	}
	if err != nil {
		return smoke.Target{Ref: image.ParseRef(arg), Bad: err}, nil
	}
	return smoke.Target{Image: img, Ref: image.Ref{Dir: dir}}, nil
}

// ownImage tells whether nobody else can change an image, or exchange it.
func ownImage(img *image.Image) bool {
	owners := trust.Caller(os.Getenv)
	for _, path := range []string{filepath.Join(img.Dir, image.ManifestFile), img.Kernel(), img.Initrd(), img.Store()} {
		f, err := owners.Open(path)
		if err != nil || owners.Reach(filepath.Dir(path)) != nil {
			return false
		}
		f.Close()
	}
	return true
}

// output is a file that is opened before anything is done, so that a path at
// which nothing can be written costs nobody a test.
type output struct {
	file  *os.File
	write func(io.Writer) error
}

type outputs []output

// openOutputs opens the file of each path but the empty one.
func openOutputs(writers map[string]func(io.Writer) error) (outputs, error) {
	var all outputs
	for path, write := range writers {
		if path == "" {
			continue
		}
		f, err := os.Create(path)
		if err != nil {
			return nil, fmt.Errorf("the results cannot be written: %w", err)
		}
		all = append(all, output{f, write})
	}
	return all, nil
}

func (all outputs) write() error {
	var errs []error
	for _, o := range all {
		errs = append(errs, o.write(o.file), o.file.Close())
	}
	return errors.Join(errs...)
}
