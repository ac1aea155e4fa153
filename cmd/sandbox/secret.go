package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/network/secret"
)

func secretCommand() *cli.Command {
	return &cli.Command{
		Name:  "secret",
		Usage: "store keys and tokens that guests use and never see",
		Description: `What is stored is in files that only you can read, and leaves them for the hosts that
you name when you give the secret to a sandbox.`,
		Subcommands: []*cli.Command{secretSetCommand(), secretLsCommand(), secretRmCommand(), secretRevokeCommand()},
	}
}

func openSecrets() (secret.Store, error) {
	dirs, err := layout.DefaultDirs(os.Getenv, os.Getuid())
	return secret.Store{Dir: dirs.Secrets()}, err
}

func secretSetCommand() *cli.Command {
	return &cli.Command{
		Name:      "set",
		Usage:     "store a secret, in place of one of that name",
		ArgsUsage: "NAME",
		Description: `NAME is that of a variable, such as GITHUB_TOKEN. The secret is asked for and not shown
while you type or paste it, or read from standard input. It is never an argument: other
programs see these, and shells keep them. Sandboxes have a new one from their next start on.

EXAMPLES
   sandbox secret set GITHUB_TOKEN
   pass show api | sandbox secret set API_KEY`,
		OnUsageError: usageError,
		Action:       secretSetAction,
	}
}

func secretSetAction(c *cli.Context) error {
	name := c.Args().First()
	switch {
	case c.NArg() == 0:
		return usage("sandbox secret set needs a name, such as GITHUB_TOKEN")
	case c.NArg() > 1 || strings.Contains(name, "="):
		return usage("sandbox secret set takes a name and no secret: other programs see what is on a command line, and shells keep it, so replace the secret where it is from if it was one. sandbox secret set NAME asks for it, or reads it from standard input")
	}
	if err := secret.CheckName(name); err != nil {
		return usage("what is given is not the name of a secret: %w", err)
	}
	store, err := openSecrets()
	if err != nil {
		return err
	}
	v, err := readSecret(c.Context, name, os.Stdin, notes())
	if err != nil {
		return fmt.Errorf("%s was not stored: %w", name, err)
	}
	return store.Set(name, v)
}

// readSecret asks for a secret on a terminal, and reads any other input to its end.
func readSecret(ctx context.Context, name string, in *os.File, out io.Writer) (secret.Value, error) {
	read := func() (secret.Value, error) { return secret.Read(in) }
	if isTerminal(in) {
		terminal := int(in.Fd()) // here, as the reader may outlive the file
		before, err := term.GetState(terminal)
		if err != nil {
			return secret.Value{}, err
		}
		// Also if the reader is left waiting.
		defer func() {
			_ = term.Restore(terminal, before)
			fmt.Fprintln(out)
		}()
		fmt.Fprintf(out, "%s, which is not shown: ", name)
		read = func() (secret.Value, error) { return readHidden(terminal) }
	}
	type result struct {
		value secret.Value
		err   error
	}
	results := make(chan result, 1)
	go func() {
		v, err := read()
		results <- result{v, err}
	}()
	select {
	case r := <-results:
		return r.value, r.err
	case <-ctx.Done():
		return secret.Value{}, context.Cause(ctx)
	}
}

// readHidden reads a line that the terminal does not show.
func readHidden(terminal int) (secret.Value, error) {
	const longest = 4095 // bytes that Linux keeps of a line (termios(3)); it drops the others without a word
	line, err := term.ReadPassword(terminal)
	if err != nil {
		return secret.Value{}, err
	}
	if len(line) >= longest {
		return secret.Value{}, fmt.Errorf("a terminal takes lines of less than %d characters: give it by standard input", longest)
	}
	return secret.NewValue(string(line))
}

func secretLsCommand() *cli.Command {
	return lister[secret.Stored]{
		of: "secret", usage: "list what is stored, without the secrets themselves",
		list: func() ([]secret.Stored, error) {
			store, err := openSecrets()
			if err != nil {
				return nil, err
			}
			return store.List()
		},
		columns: []string{"NAME", "STORED"},
		row:     func(s secret.Stored) []string { return []string{s.Name, ago(s.Time)} },
	}.command()
}

func secretRmCommand() *cli.Command {
	return &cli.Command{
		Name:      "rm",
		Usage:     "forget secrets",
		ArgsUsage: "NAME...",
		Description: `A sandbox that runs keeps what it has until it stops.

EXAMPLES
   sandbox secret rm GITHUB_TOKEN API_KEY`,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return usage("sandbox secret rm needs the names of secrets: sandbox secret ls shows them")
			}
			store, err := openSecrets()
			if err != nil {
				return err
			}
			var errs []error
			for _, name := range c.Args().Slice() {
				err := store.Remove(name)
				if errors.Is(err, os.ErrNotExist) {
					err = fmt.Errorf("no secret is stored as %s: sandbox secret ls shows those that are", name)
				}
				errs = append(errs, err)
			}
			return errors.Join(errs...)
		},
	}
}

func secretRevokeCommand() *cli.Command {
	return &cli.Command{
		Name:      "revoke",
		Usage:     "take secrets away from one sandbox",
		ArgsUsage: "SANDBOX NAME...",
		Description: `Requests of its guest with their placeholders are refused, at once and after each later
start. Other sandboxes keep them, also its forks, and what is stored stays. To end a secret
everywhere, take it back where it was given to you.

EXAMPLES
   sandbox secret revoke try-3 GITHUB_TOKEN`,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if c.NArg() < 2 {
				return usage("sandbox secret revoke needs the name of a sandbox, and of its secrets: sandbox inspect shows them")
			}
			s, err := sandboxNamed(c.Args().First())
			if err != nil {
				return err
			}
			var errs []error
			for _, name := range c.Args().Tail() {
				errs = append(errs, s.RevokeSecret(c.Context, name))
			}
			return errors.Join(errs...)
		},
	}
}
