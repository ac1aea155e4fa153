package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/network/login"
)

func loginCommand() *cli.Command {
	c := &cli.Command{
		Name:  "login",
		Usage: "log in with a subscription that AI agents in guests use",
		Description: `A login stays on this machine, in a file that only you can read, and is kept fresh there
for all sandboxes: guests have placeholders, and sandbox run --agent uses it.
A token that claude setup-token prints is no login but a secret:
sandbox secret set CLAUDE_CODE_OAUTH_TOKEN.`,
	}
	for _, name := range login.Names() {
		c.Subcommands = append(c.Subcommands, loginAtCommand(name))
	}
	c.Subcommands = append(c.Subcommands, loginLsCommand())
	return c
}

func loginAtCommand(name string) *cli.Command {
	p, err := login.Find(name)
	if err != nil {
		panic(err) // it is one of login.Names
	}
	return &cli.Command{
		Name:  name,
		Usage: "log in to " + p.Program,
		Description: fmt.Sprintf(`The browser opens, or an address is shown that you open in one, on any machine if the page
shows a code. The login is the sandboxes' own, beside the one that %[1]s has on this
machine.

--import moves that one here in place of a new one: %[1]s is then logged out on this
machine, as both cannot use one login. End it there first.

EXAMPLES
   sandbox login %[2]s
   sandbox login %[2]s --import`, p.Program, name),
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "no-browser", Usage: "show the address, and start no browser"},
			&cli.BoolFlag{Name: "import", Usage: fmt.Sprintf("move the login that %s has on this machine, which is logged out there by that", p.Program)},
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "do not ask"},
		},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			store, err := openLogins()
			if err != nil {
				return err
			}
			if c.Bool("import") {
				err = importLogin(c, store, p)
			} else {
				err = logIn(c, store, p)
			}
			if err == nil {
				fmt.Fprintf(notes(), "sandbox: you are logged in: sandbox run --agent %s uses it\n", name)
			}
			return err
		},
	}
}

func openLogins() (login.Store, error) {
	dirs, err := layout.DefaultDirs(os.Getenv, os.Getuid())
	return login.Store{Dir: dirs.Logins()}, err
}

func importLogin(c *cli.Context, store login.Store, p login.Provider) error {
	file, err := p.OwnFile(os.Getenv)
	if err != nil {
		return err
	}
	if !c.Bool("force") {
		question := fmt.Sprintf("Move the login from %s? %s is logged out on this machine then.", file, p.Program)
		if !isTerminal(os.Stdin) || !isTerminal(os.Stderr) {
			return usage("--import would move the login from %s, so that %s is logged out on this machine, and there is no terminal to ask on: add --force", file, p.Program)
		}
		if !confirm(os.Stdin, notes(), question) {
			return errors.New("nothing was moved")
		}
	}
	return store.Import(c.Context, p, file)
}

func logIn(c *cli.Context, store login.Store, p login.Provider) error {
	attempt, err := login.Keeper{Store: store, Client: http.DefaultClient}.Begin(p)
	if err != nil {
		return err
	}
	defer attempt.Close()
	fmt.Fprintf(notes(), "Open this address in your browser, and log in to %s:\n\n%s\n\n", p.Program, attempt.Address)
	if !c.Bool("no-browser") && (os.Getenv("DISPLAY") != "" || os.Getenv("WAYLAND_DISPLAY") != "") {
		openBrowser(attempt.Address)
	}
	var l login.Login
	if attempt.Shown() {
		code, err := readSecret(c.Context, "The code that the page shows then", os.Stdin, notes())
		if err != nil {
			return fmt.Errorf("the code cannot be read: %w", err)
		}
		l, err = attempt.Paste(c.Context, code.Reveal())
		if err != nil {
			return err
		}
	} else {
		l, err = attempt.Await(c.Context)
		if err != nil {
			return err
		}
	}
	return store.Put(context.WithoutCancel(c.Context), p.Name, l)
}

// openBrowser starts the user's browser, which may go on for as long as it likes. Without one, there is the address.
func openBrowser(address string) {
	cmd := exec.Command("xdg-open", address)
	if cmd.Start() == nil {
		go func() { _ = cmd.Wait() }()
	}
}

func loginLsCommand() *cli.Command {
	return lister[shownLogin]{
		of: "login", usage: "list the logins that there are, without their tokens",
		list: func() ([]shownLogin, error) {
			store, err := openLogins()
			if err != nil {
				return nil, err
			}
			all, err := store.List()
			rows := []shownLogin{}
			for _, l := range all {
				rows = append(rows, shownLogin{Name: l.Name, Plan: l.Plan, Since: l.Since, Renewed: l.Renewed, Ended: l.Ended})
			}
			return rows, err
		},
		columns: []string{"NAME", "PLAN", "LOGGED IN", "STATUS"},
		row: func(l shownLogin) []string {
			status := "good"
			if l.Ended != "" {
				status = fmt.Sprintf("ended: %s (sandbox login %s)", l.Ended, l.Name)
			}
			return []string{l.Name, l.Plan, ago(l.Since), status}
		},
	}.command()
}

// shownLogin is a login as people and programs see it.
type shownLogin struct {
	Name    string    `json:"name"`
	Plan    string    `json:"plan,omitempty"`
	Since   time.Time `json:"since"`
	Renewed time.Time `json:"renewed"`
	Ended   string    `json:"ended,omitempty"`
}

func logoutCommand() *cli.Command {
	return &cli.Command{
		Name:      "logout",
		Usage:     "forget logins",
		ArgsUsage: "NAME...",
		Description: `Sandboxes that run lose it within a minute. At the provider, the login goes on until it
expires: end it in your account's settings there.

EXAMPLES
   sandbox logout claude`,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return usage("sandbox logout needs the names of logins: sandbox login ls shows them")
			}
			store, err := openLogins()
			if err != nil {
				return err
			}
			var errs []error
			for _, name := range c.Args().Slice() {
				if _, err := login.Find(name); err != nil {
					errs = append(errs, err)
					continue
				}
				err := store.Remove(c.Context, name)
				if errors.Is(err, os.ErrNotExist) {
					err = fmt.Errorf("there is no login at %s: sandbox login ls shows those that there are", name)
				}
				errs = append(errs, err)
			}
			return errors.Join(errs...)
		},
	}
}
