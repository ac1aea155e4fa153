// Command sandbox runs programs, AI agents above all, in virtual machines of
// their own that see only the directories they were given.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/internal/confine"
	"github.com/sourcery-zone/sandbox/machine"
)

// version is set at link time; a build by "go install" has its module's.
var version string

func main() {
	confine.Main()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newApp().RunContext(ctx, os.Args)
	stop()
	os.Exit(report(err))
}

// Exit codes, those of Docker for what it does alike.
const (
	exitFailure    = 1   // a command of ours failed
	exitUsage      = 2   // the command line is wrong
	exitRunFailure = 125 // run or exec failed before the command ran
)

// exitCode ends the program with a status and, unless err is nil, a message.
type exitCode struct {
	code int
	err  error
}

func (e *exitCode) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitCode) Unwrap() error { return e.err }

func report(err error) int {
	if err == nil {
		return 0
	}
	code := exitFailure
	var exit *exitCode
	if errors.As(err, &exit) {
		code, err = exit.code, exit.err
	}
	if err != nil {
		fmt.Fprintf(notes(), "sandbox: %v\n", err)
	}
	return code
}

func newApp() *cli.App {
	app := &cli.App{
		Name:    "sandbox",
		Usage:   "run programs in virtual machines of their own",
		Version: buildVersion(),
		Writer:  results(), ErrWriter: notes(),
		Description: `A sandbox is a virtual machine that starts in a moment, needs no root and no
daemon, and sees only the directories that it is given.

   sandbox run --share . -- make test       run one command, then forget the machine
   sandbox run --name work --share .        a machine to keep, with a shell in it
   sandbox exec work -- git status          one more command in it
   sandbox stop work                        its home stays for the next start

When something does not work, begin with: sandbox doctor`,
		Commands: []*cli.Command{
			runCommand(), execCommand(), startCommand(), lsCommand(), stopCommand(), resetCommand(), rmCommand(),
			killCommand(), restartCommand(), pauseCommand(), resumeCommand(), resizeCommand(), snapshotCommand(), forkCommand(), shareCommand(), waitCommand(), renameCommand(), eventsCommand(), statsCommand(), pruneCommand(),
			attachCommand(), cpCommand(), qmpCommand(), sshCommand(), sshConfigCommand(), proxyCommand(), knownHostsCommand(),
			logsCommand(), inspectCommand(), configCommand(), imageCommand(), smokeCommand(), doctorCommand(), superviseCommand(),
		},
		// Paths and values may hold commas.
		DisableSliceFlagSeparator: true,
		UseShortOptionHandling:    true,
		HideHelpCommand:           true,
		EnableBashCompletion:      true,
		OnUsageError:              usageError,
		CommandNotFound: func(c *cli.Context, name string) {
			fmt.Fprintf(notes(), "sandbox: there is no command %q: sandbox --help shows those that exist\n", name)
			os.Exit(exitUsage)
		},
		ExitErrHandler: func(*cli.Context, error) {}, // report does it
	}
	checkArguments(app.Commands)
	return app
}

// checkArguments makes the commands refuse what they would misunderstand, before
// they do anything: sandbox rm work --force must not remove work and then look
// for a sandbox named --force.
func checkArguments(commands []*cli.Command) {
	for _, command := range commands {
		checkArguments(command.Subcommands)
		action := command.Action
		if action == nil || slices.Contains(passesOn, command.Name) {
			continue
		}
		command.Action = func(c *cli.Context) error {
			if command.ArgsUsage == "" && c.NArg() > 0 {
				return &exitCode{exitUsage, fmt.Errorf("%s takes no argument, and %q is one", command.HelpName, c.Args().First())}
			}
			for _, arg := range c.Args().Slice() {
				if strings.HasPrefix(arg, "-") {
					return &exitCode{exitUsage, fmt.Errorf("%s follows an argument, but options come first: %[2]s %[1]s %[3]s", arg, command.HelpName, command.ArgsUsage)}
				}
			}
			return action(c)
		}
	}
}

// passesOn are the commands whose arguments may be another program's options, or
// files with any name.
var passesOn = []string{"run", "exec", "ssh", "qmp", "cp", machine.SuperviseCommand}

func usageError(c *cli.Context, err error, _ bool) error {
	return &exitCode{exitUsage, fmt.Errorf("%w (sandbox %s --help shows the options)", err, c.Command.Name)}
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

// openHost opens the user's sandboxes.
func openHost() (*machine.Host, error) {
	dirs, err := machine.DefaultDirs(os.Getenv, os.Getuid())
	if err != nil {
		return nil, err
	}
	return machine.OpenHost(dirs)
}

// named opens the sandbox that the command's only argument names.
func named(c *cli.Context) (*machine.Sandbox, error) {
	if c.NArg() != 1 {
		return nil, &exitCode{exitUsage, fmt.Errorf("sandbox %s needs the name of one sandbox: sandbox ls shows them", c.Command.Name)}
	}
	host, err := openHost()
	if err != nil {
		return nil, err
	}
	return host.Get(c.Args().First())
}

// superviseCommand is what machine.Start runs; people never do.
func superviseCommand() *cli.Command {
	return &cli.Command{
		Name:   machine.SuperviseCommand,
		Hidden: true,
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "hold"}, &cli.StringFlag{Name: "restore"}, &cli.BoolFlag{Name: "with-home"}},
		Action: func(c *cli.Context) error {
			host, err := openHost()
			if err != nil {
				return err
			}
			// Not c.Context: the supervisor answers signals in order.
			return machine.Supervise(context.Background(), host, c.Args().First(), machine.SuperviseOptions{Hold: c.Bool("hold"), Restore: c.String("restore"), WithHome: c.Bool("with-home")})
		},
	}
}

// imagesDir is the image store's directory.
func imagesDir() (string, error) {
	dirs, err := machine.DefaultDirs(os.Getenv, os.Getuid())
	return dirs.Images(), err
}

// cacheDir is for what can be made again.
func cacheDir() (string, error) {
	dirs, err := machine.DefaultDirs(os.Getenv, os.Getuid())
	return dirs.Cache, err
}

// sweepTemplates removes the states for warm starts of images that are gone.
func sweepTemplates() error {
	host, err := openHost()
	if err != nil {
		return err
	}
	host.SweepTemplates()
	return nil
}

// imageDigestsInUse lists the digests of the images that sandboxes need.
func imageDigestsInUse() ([]string, error) {
	host, err := openHost()
	if err != nil {
		return nil, err
	}
	return host.ImageInUse()
}
