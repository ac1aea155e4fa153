package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/project"
)

// commandFlags describe a command to be run in a sandbox.
func commandFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "set `NAME[=VALUE]` for the command; without VALUE it is taken from your environment; repeatable"},
		&cli.StringSliceFlag{Name: "env-file", Usage: "read NAME[=VALUE] lines from `FILE`; repeatable"},
		optionFlag(project.Find("workdir")),
		&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "run as this `USER` of the guest (default: the image's)"},
		&cli.BoolFlag{Name: "login", Usage: "read the user's profile before the command, as a login does: for programs that only it has on its PATH"},
		detachKeysFlag(),
		&cli.BoolFlag{Name: "no-tty", Aliases: []string{"T"}, Usage: "use no terminal even when there is one"},
	}
}

// command is a command to be run in a sandbox; without argv, a login shell.
type command struct {
	argv    []string
	env     []string
	workdir string
	user    string
	login   bool
	tty     bool

	detachKeys []byte    // none: nothing detaches
	terminal   *ttyInput // that the input comes from, if it does, while the command runs
	keyboard   *keyboard // with tty, while the command runs
}

func parseCommand(c *cli.Context, argv []string) (*command, error) {
	env, err := parseEnv(c.StringSlice("env"), c.StringSlice("env-file"), os.LookupEnv)
	if err != nil {
		return nil, err
	}
	keys, err := parseDetachKeys(c.String("detach-keys"))
	if err != nil {
		return nil, err
	}
	return &command{
		argv: argv, env: env, workdir: c.String("workdir"), user: c.String("user"), login: c.Bool("login"), detachKeys: keys,
		tty: !c.Bool("no-tty") && isTerminal(os.Stdin) && isTerminal(os.Stdout),
	}, nil
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// run runs the command with our own standard streams. Its error is an exitCode
// that holds the command's, or what kept the command from running.
func (k *command) run(ctx context.Context, s *machine.Sandbox) error {
	client, err := s.Dial(ctx)
	if err != nil {
		return &exitCode{exitRunFailure, err}
	}
	defer client.Close()
	// Once it runs, signals are the command's, and end it if it wants them to.
	running, abandon := context.WithCancelCause(context.WithoutCancel(ctx))
	defer abandon(nil)
	started := context.AfterFunc(ctx, func() { abandon(context.Cause(ctx)) })
	cmd := client.Command(running, k.argv...)
	cmd.Env, cmd.User, cmd.Login = k.env, k.user, k.login
	if cmd.Dir, err = k.dir(s); err != nil {
		return &exitCode{exitRunFailure, err}
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	restore, err := k.useInput(cmd)
	if err != nil {
		return &exitCode{exitRunFailure, err}
	}
	defer restore()
	if err := cmd.Start(); err != nil {
		return &exitCode{exitRunFailure, fmt.Errorf("running %s in %s: %w", k.name(), s.Name, err)}
	}
	insisted, stop := k.relaySignals(cmd)
	defer stop()
	started()
	// Who reads our output is the command's reader: when he has gone it is the
	// command that has to hear of it, by our failing write.
	signal.Ignore(unix.SIGPIPE)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var left <-chan error // never, without a terminal
	if k.tty {
		left = k.keyboard.left
	}
	select {
	case err := <-ended:
		return commandExit(err)
	case err := <-left:
		restore() // before anything is said
		return k.leave(s, err)
	case sig := <-insisted:
		return &exitCode{128 + int(sig.(syscall.Signal)), fmt.Errorf("%s did not end by the signal %s, so the connection to it was closed; the guest ends what is left of it", k.name(), unix.SignalName(sig.(syscall.Signal)))}
	}
}

func (k *command) name() string {
	if len(k.argv) == 0 {
		return "a shell"
	}
	return k.argv[0]
}

// dir is where the command runs: who shares a project wants to be in it.
func (k *command) dir(s *machine.Sandbox) (string, error) {
	if k.workdir != "" {
		return k.workdir, nil
	}
	config, err := s.Config()
	if err != nil {
		return "", err
	}
	shares := config.ProjectShares()
	if len(shares) == 0 {
		return "", nil
	}
	return shares[0].Target, nil
}

// useInput makes our input the command's. A terminal's work is done, with tty,
// by one of the guest's.
func (k *command) useInput(cmd *agent.Cmd) (restore func(), err error) {
	if !isTerminal(os.Stdin) {
		cmd.Stdin = commandInput(os.Stdin)
		return func() { returnInput(cmd.Stdin) }, nil
	}
	if k.terminal, err = newTTYInput(os.Stdin, k.tty); err != nil {
		return nil, err
	}
	if !k.tty {
		cmd.Stdin = k.terminal
		return func() {}, nil
	}
	width, height, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil {
		return nil, err
	}
	cmd.Terminal = &agent.Terminal{Term: os.Getenv("TERM"), Width: width, Height: height}
	if colors := os.Getenv("COLORTERM"); colors != "" {
		cmd.Env = append([]string{"COLORTERM=" + colors}, cmd.Env...) // a user's own comes later and wins
	}
	if err := k.terminal.take(); err != nil {
		return nil, err
	}
	k.terminal.taken = func() { k.resize(cmd) }
	k.keyboard = newKeyboard(k.terminal, k.detachKeys)
	screen := newScreenModes(os.Stdout)
	cmd.Stdin, cmd.Stdout = k.keyboard, screen
	return func() {
		screen.close()
		k.terminal.close()
	}, nil
}

// relaySignals passes signals and changes of the window's size to the command
// until stop is called. insisted gets the signal by which somebody wants an end
// although the command has none.
func (k *command) relaySignals(cmd *agent.Cmd) (insisted <-chan os.Signal, stop func()) {
	signals := make(chan os.Signal, 16)
	passed := make(chan os.Signal, cap(signals))
	done := make(chan struct{})
	notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	if k.terminal != nil {
		notify(signals, unix.SIGCONT)
	}
	if k.tty {
		notify(signals, unix.SIGWINCH, unix.SIGTSTP)
	}
	insist := newInsistence()
	go func() {
		defer close(passed)
		defer insist.close()
		for {
			select {
			case sig := <-signals:
				insist.note(sig)
				select {
				case passed <- sig:
				default: // the guest takes none any more
				}
			case <-done:
				return
			}
		}
	}()
	go func() { // by itself, because a guest that hangs holds it up
		for sig := range passed {
			k.relay(cmd, sig)
		}
	}()
	return insist.given, func() {
		signal.Stop(signals)
		close(done)
	}
}

func (k *command) relay(cmd *agent.Cmd, sig os.Signal) {
	switch {
	case sig == unix.SIGHUP && k.tty:
		k.keyboard.leave(errHangup)
	case sig == unix.SIGCONT:
		k.terminal.resume()
	case sig == unix.SIGTSTP:
		k.terminal.suspend()
	case sig == unix.SIGWINCH:
		k.resize(cmd)
	default:
		_ = cmd.Signal(strings.TrimPrefix(unix.SignalName(sig.(syscall.Signal)), "SIG"))
	}
}

// resize tells the guest's terminal the size of ours.
func (k *command) resize(cmd *agent.Cmd) {
	if width, height, err := term.GetSize(int(os.Stdout.Fd())); err == nil {
		_ = cmd.Resize(width, height)
	}
}

// commandExit turns the command's end into our own.
func commandExit(err error) error {
	var (
		exit   *agent.ExitError
		broken *agent.StreamError
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &broken) && errors.Is(err, unix.EPIPE):
		return &exitCode{128 + int(unix.SIGPIPE), nil} // as in any pipeline
	case errors.As(err, &broken):
		return &exitCode{exitRunFailure, err}
	case !errors.As(err, &exit):
		return &exitCode{exitRunFailure, fmt.Errorf("the connection to the command was lost: %w", err)}
	case exit.Signal != "":
		return &exitCode{128 + int(unix.SignalNum("SIG"+exit.Signal)), nil}
	}
	return &exitCode{exit.Code, nil}
}

// parseEnv joins the files' and the flags' variables, later ones last.
func parseEnv(flags, files []string, lookup func(string) (string, bool)) ([]string, error) {
	var env []string
	for _, file := range files {
		data, err := readSmallFile(file)
		if err != nil {
			return nil, fmt.Errorf("--env-file: %w", err)
		}
		number := 0
		for line := range strings.Lines(string(data)) {
			number++
			line = strings.TrimRight(line, "\r\n")
			if trimmed := strings.TrimSpace(line); trimmed == "" || strings.HasPrefix(trimmed, "#") {
				continue
			}
			kv, err := parseVariable(line, lookup)
			if err != nil {
				return nil, fmt.Errorf("%s:%d: %w", file, number, err)
			}
			env = append(env, kv)
		}
	}
	for _, flag := range flags {
		kv, err := parseVariable(flag, lookup)
		if err != nil {
			return nil, fmt.Errorf("--env: %w", err)
		}
		env = append(env, kv)
	}
	return env, nil
}

// parseVariable never quotes a value in an error: it may be a secret.
func parseVariable(s string, lookup func(string) (string, bool)) (string, error) {
	name, value, ok := strings.Cut(s, "=")
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || r == 0 }) {
		if !ok {
			return "", errors.New("there is no NAME=VALUE here, nor a NAME without a space in it")
		}
		return "", fmt.Errorf("%q is not the name of a variable: it must not be empty, and have no space in it or around the equals sign", name)
	}
	if strings.ContainsRune(value, 0) {
		return "", fmt.Errorf("the value of %s holds a NUL byte", name)
	}
	if !ok {
		if value, ok = lookup(name); !ok {
			return "", fmt.Errorf("%s has no value here and is not set in your environment: write %[1]s=VALUE, or export it", name)
		}
	}
	return name + "=" + value, nil
}

func validVariable(name string) bool {
	valid := func(i int, r rune) bool {
		return r == '_' || (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z') || (i > 0 && r >= '0' && r <= '9')
	}
	for i, r := range name {
		if !valid(i, r) {
			return false
		}
	}
	return name != ""
}
