// Command sandbox runs programs, AI agents above all, in virtual machines of
// their own that see only the directories they were given.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/supervisor"
)

// version is set at link time; a build by "go install" has its module's.
var version string

func main() {
	supervisor.Main(supervisor.AllowCommand("sandbox net allow"), supervisor.AskCommand("sandbox net ask"))
	completeEnvironment()
	if filepath.Base(os.Args[0]) == remoteHelper {
		os.Exit(report(runRemoteHelper(context.Background(), os.Args)))
	}
	ctx, stop := signal.NotifyContext(context.Background(), heeded(os.Interrupt, syscall.SIGTERM)...)
	app := newApp()
	line := arrange(app, os.Args)
	if line.help != nil {
		fmt.Fprint(results(), helpText(line.help))
		return
	}
	err := app.RunContext(ctx, line.words)
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
	if exit, ok := errors.AsType[*exitCode](err); ok {
		code, err = exit.code, exit.err
	}
	if err != nil {
		fmt.Fprintf(notes(), "sandbox: %s\n", sentences(explain(err)))
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

   sandbox run --share . -- make test    run one command, forget the machine
   sandbox run --name work --share .     a machine to keep, with a shell in it
   sandbox exec work -- git status       one more command in it
   sandbox stop work                     its home stays for the next start

When something does not work, begin with: sandbox doctor`,
		// Paths and values may hold commas.
		DisableSliceFlagSeparator: true,
		UseShortOptionHandling:    true,
		HideHelp:                  true, // helpText is ours
		EnableBashCompletion:      true,
		OnUsageError:              usageError,
		Action:                    withoutCommand,
		ExitErrHandler:            func(*cli.Context, error) {}, // report does it
	}
	for _, group := range commandGroups() {
		for _, command := range group.commands {
			command.Category = group.title
			app.Commands = append(app.Commands, command)
		}
	}
	app.Setup() // it would give the commands half of their names later
	nameCommands(app.Name, app.Commands)
	checkArguments(app.Commands)
	return app
}

// commandGroups are all commands, as help shows them.
func commandGroups() []commandGroup {
	return []commandGroup{
		{"make and use sandboxes", []*cli.Command{
			runCommand(), execCommand(), attachCommand(), cpCommand(), sshCommand(), sshConfigCommand(),
		}},
		{"their life", []*cli.Command{
			startCommand(), stopCommand(), restartCommand(), killCommand(), pauseCommand(), resumeCommand(), waitCommand(),
			resizeCommand(), publishCommand(), unpublishCommand(), mountCommand(), umountCommand(), shareCommand(), renameCommand(), resetCommand(), rmCommand(), pruneCommand(),
		}},
		{"snapshots and forks", []*cli.Command{snapshotCommand(), forkCommand()}},
		{"changes in copy-on-write shares", []*cli.Command{diffCommand(), applyCommand(), discardCommand(), tryCommand()}},
		{"look at them", []*cli.Command{
			lsCommand(), inspectCommand(), portCommand(), mountsCommand(), netCommand(), logsCommand(), statsCommand(), eventsCommand(), auditCommand(), qmpCommand(),
		}},
		{"images and this machine", []*cli.Command{imageCommand(), smokeCommand(), configCommand(), trustCommand(), secretCommand(), loginCommand(), logoutCommand(), cacheCommand(), sessionsCommand(), doctorCommand()}},
		{"for other programs", []*cli.Command{proxyCommand(), knownHostsCommand()}},
	}
}

type commandGroup struct {
	title    string
	commands []*cli.Command
}

// nameCommands gives the commands their full names, and keeps the library from
// adding commands of its own, whose names people want to give to sandboxes.
func nameCommands(parent string, commands []*cli.Command) {
	for _, c := range commands {
		c.HelpName = parent + " " + c.Name
		c.HideHelp, c.HideHelpCommand = true, true
		if len(c.Subcommands) > 0 {
			c.Action, c.OnUsageError = withoutCommand, usageError
			for _, sub := range c.Subcommands {
				sub.Category = "commands"
			}
		}
		nameCommands(c.HelpName, c.Subcommands)
	}
}

// withoutCommand is what a command does that has others below it, when none of
// these was named.
func withoutCommand(c *cli.Context) error {
	if c.NArg() == 0 {
		command := c.Command
		if command.Name == c.App.Name {
			command = root(c.App)
		}
		_, err := fmt.Fprint(c.App.Writer, helpText(command))
		return err
	}
	return usage("there is no command %q: %s --help shows those that exist", c.Args().First(), c.Command.HelpName)
}

// checkArguments makes the commands that take no argument refuse one before
// they do anything.
func checkArguments(commands []*cli.Command) {
	for _, command := range commands {
		checkArguments(command.Subcommands)
		action := command.Action
		if command.ArgsUsage != "" || len(command.Subcommands) > 0 {
			continue
		}
		command.Action = func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usage("%s takes no argument, and %q is one", command.HelpName, c.Args().First())
			}
			return action(c)
		}
	}
}

// usage is a mistake in the command line, which the message tells how to mend.
func usage(format string, args ...any) error {
	return &exitCode{exitUsage, fmt.Errorf(format, args...)}
}

// usageError is for the mistakes that the library finds, which says little.
func usageError(c *cli.Context, err error, _ bool) error {
	return usage("%w (%s --help shows the options)", err, c.Command.HelpName)
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

// named opens the sandbox that the command's only argument names.
func named(c *cli.Context) (*machine.Sandbox, error) {
	if c.NArg() != 1 {
		return nil, usage("%s needs the name of one sandbox: sandbox ls shows them", c.Command.HelpName)
	}
	return sandboxNamed(c.Args().First())
}

// sandboxNamed opens a sandbox by its name.
func sandboxNamed(name string) (*machine.Sandbox, error) {
	host, err := machine.Open()
	if err != nil {
		return nil, err
	}
	return host.Get(name)
}

// imagesDir is the image store's directory.
func imagesDir() (string, error) {
	dirs, err := layout.DefaultDirs(os.Getenv, os.Getuid())
	return dirs.Images(), err
}

// cacheDir is for what can be made again.
func cacheDir() (string, error) {
	dirs, err := layout.DefaultDirs(os.Getenv, os.Getuid())
	return dirs.Cache, err
}

// sweepTemplates removes the states for warm starts of images that are gone.
func sweepTemplates() error {
	host, err := machine.Open()
	if err != nil {
		return err
	}
	host.SweepTemplates()
	return nil
}

// imageDigestsInUse lists the digests of the images that sandboxes need.
func imageDigestsInUse() ([]string, error) {
	host, err := machine.Open()
	if err != nil {
		return nil, err
	}
	return host.ImageInUse()
}
