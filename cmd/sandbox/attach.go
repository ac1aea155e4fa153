package main

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/urfave/cli/v2"
)

func attachCommand() *cli.Command {
	return &cli.Command{
		Name:      "attach",
		Usage:     "open a shell in a running sandbox, or its console",
		ArgsUsage: "NAME",
		Description: `Each attach is a login shell of its own, in the first share. The detach keys,
ctrl-p ctrl-q unless --detach-keys says otherwise, leave it. A lost terminal ends
the shell; one in a --session stays, with what runs in it, until it is left by
"exit", and any number of terminals can show it.

EXAMPLES
   sandbox attach work
   sandbox attach --session claude work     again the same one, later
   sandbox attach --detach-keys ctrl-x,d work
   sandbox attach --console work            what the kernel and the boot say`,
		Flags: append(commandFlags(),
			&cli.StringFlag{Name: "session", Aliases: []string{"s"}, Usage: "open or rejoin the session of this `NAME`, which outlives the terminal (tmux in the guest)"},
			&cli.BoolFlag{Name: "console", Usage: "show the serial console from its beginning, and type into it; it works before commands can run"},
			&cli.BoolFlag{Name: "read-only", Usage: "with --console: leave the typing to others"},
			&cli.BoolFlag{Name: "take", Usage: "with --console: type although somebody else does, who can then only read"}),
		OnUsageError: usageError,
		Action:       attach,
	}
}

func attach(c *cli.Context) error {
	if err := checkAttach(c); err != nil {
		return usage("%w", err)
	}
	command, err := parseCommand(c, nil)
	if err != nil {
		return usage("%w", err)
	}
	s, err := named(c)
	if err != nil {
		return err
	}
	if c.Bool("console") {
		return attachConsole(c.Context, s, consoleOptions{
			readOnly: c.Bool("read-only"), take: c.Bool("take"), tty: command.tty, detachKeys: command.detachKeys,
		})
	}
	if session := c.String("session"); session != "" {
		command.argv = sessionArgv(session)
	}
	return command.session(c.Context, s, true)
}

var sessionRule = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$`)

func checkAttach(c *cli.Context) error {
	if session := c.String("session"); c.IsSet("session") && !sessionRule.MatchString(session) {
		return fmt.Errorf("--session is %q, but must be up to 64 letters, digits, hyphens and underscores", session)
	}
	if !c.Bool("console") {
		if c.Bool("read-only") || c.Bool("take") {
			return errors.New("--read-only and --take are about the console: add --console")
		}
		return nil
	}
	for _, name := range []string{"session", "env", "env-file", "workdir", "user", "login"} {
		if c.IsSet(name) {
			return fmt.Errorf("--%s is for a shell and not for --console: leave out one of them", name)
		}
	}
	if c.Bool("read-only") && c.Bool("take") {
		return errors.New("--read-only and --take contradict each other: leave out one of them")
	}
	return nil
}

// openSession is run by the guest's shell.
const openSession = `command -v tmux >/dev/null || {
	echo "sandbox: --session needs tmux in the guest: install it there, for example with sandbox exec --user root NAME -- apt-get install -y tmux" >&2
	exit 127
}
exec tmux -u new-session -A -s "$1"`

func sessionArgv(name string) []string {
	return []string{"sh", "-c", openSession, "sh", name}
}
