//go:build linux

package server

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// setEnvironment is the script with which each shell of NixOS begins: the
	// order of PATH, and the variables of the configuration.
	setEnvironment = "/etc/set-environment"

	// scriptPatience bounds what runs before a command, if the script takes a
	// shell. It starts no programs of its own.
	scriptPatience = 10 * time.Second
)

// LoginSettings returns an Env for a [Server], which has what every login of this
// machine gets: the settings of /etc/environment, and those of the script with
// which each shell of NixOS begins. The script is started by processes, and what
// is wrong with it logged.
func LoginSettings(processes *Starter, logger *slog.Logger) func(context.Context, User) []string {
	script := &scriptSettings{path: setEnvironment, starter: processes}
	return func(ctx context.Context, user User) []string {
		// Read anew each time, as a login does; without it there is nothing.
		text, _ := os.ReadFile("/etc/environment")
		settings, err := script.of(ctx, user)
		if err != nil {
			logger.Warn("a command lacks what its shell would have", "err", err)
		}
		return append(parseEnvironment(string(text)), settings...)
	}
}

// scriptSettings knows what a shell script sets, without which a command that
// no shell starts would find other programs than one that a shell does.
type scriptSettings struct {
	path    string // of the script; without one there are no settings
	starter *Starter

	mu    sync.Mutex
	known map[scriptRun][]string
}

// scriptRun is what the outcome depends on. In NixOS a script with another text
// has another file.
type scriptRun struct {
	file     string
	modified time.Time
	user     string
	home     string
}

// of returns what the script sets for the user. It is read, or run if it has
// more than settings, once for each.
func (s *scriptSettings) of(ctx context.Context, user User) ([]string, error) {
	file, err := filepath.EvalSymlinks(s.path)
	if err != nil {
		return nil, nil // most systems have none
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	run := scriptRun{file, info.ModTime(), user.Name, user.Home}
	s.mu.Lock()
	defer s.mu.Unlock()
	if settings, ok := s.known[run]; ok {
		return settings, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	env := environ(user, runtimeDir(user), nil)
	settings, ok := exports(string(text), env)
	if !ok {
		settings, err = s.run(ctx, file, user, env)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot learn what %s sets: %w", s.path, err)
	}
	settings = slices.DeleteFunc(settings, func(setting string) bool {
		name, _, _ := strings.Cut(setting, "=")
		// What a shell keeps for itself, and what belongs to a terminal.
		return slices.Contains(env, setting) || slices.Contains([]string{"_", "SHLVL", "PWD", "OLDPWD", "TERM"}, name)
	})
	if s.known == nil {
		s.known = make(map[scriptRun][]string)
	}
	s.known[run] = settings
	return settings, nil
}

// run runs the script, as the user, and returns the environment at its end.
func (s *scriptSettings) run(ctx context.Context, file string, user User, env []string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, scriptPatience)
	defer cancel()
	// env is in /usr/bin everywhere, and not on the path that the script sets.
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", `. "$0" >&2 && exec /usr/bin/env -0`, file)
	cmd.Dir, cmd.Env = "/", env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = credential(user)
	}
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err := s.starter.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(complaints.String()))
	}
	return strings.Split(strings.TrimSuffix(out.String(), "\x00"), "\x00"), nil
}

// What [exports] understands of a shell's language: a comment, and a variable
// that is set to a text, in which others may be named. In quotes, a text can have
// several lines; without them, only what no shell gives a meaning to.
var (
	exportLine = regexp.MustCompile(`^(?:[ \t]*(?:#[^\n]*)?|[ \t]*export ([A-Za-z_][A-Za-z0-9_]*)=(?:"([^"\\` + "`" + `]*)"|([A-Za-z0-9_./:@%+,$-]*))[ \t]*)(?:\n|$)`)
	named      = regexp.MustCompile(`\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\}|)`)
)

// exports returns the environment env as a script leaves it that does nothing
// but set variables. A shell for that would take an emulated guest longer than
// most commands. If the script has anything else, ok is false.
func exports(script string, env []string) (after []string, ok bool) {
	after, ok = slices.Clone(env), true
	for ok && script != "" {
		line := exportLine.FindStringSubmatch(script)
		if line == nil {
			return nil, false
		}
		script = script[len(line[0]):]
		if line[1] == "" {
			continue
		}
		value := named.ReplaceAllStringFunc(line[2]+line[3], func(reference string) string {
			name := strings.Trim(reference, "${}")
			value := getenv(after, name)
			// Others can be a shell's own, as UID is, or no variable.
			ok = ok && (value != "" || strings.HasPrefix(name, "XDG_") || name == "TERM")
			return value
		})
		after = setenv(after, line[1]+"="+value)
	}
	return after, ok
}
