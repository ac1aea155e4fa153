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

	// scriptPatience bounds what runs before a command. The script starts no
	// programs of its own.
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

// of returns what the script sets for the user. It is run once for each.
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
	settings, err := s.run(ctx, file, user)
	if err != nil {
		return nil, fmt.Errorf("cannot learn what %s sets: %w", s.path, err)
	}
	if s.known == nil {
		s.known = make(map[scriptRun][]string)
	}
	s.known[run] = settings
	return settings, nil
}

// run runs the script, as the user, and returns what it changes.
func (s *scriptSettings) run(ctx context.Context, file string, user User) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, scriptPatience)
	defer cancel()
	// env is in /usr/bin everywhere, and not on the path that the script sets.
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", `. "$0" >&2 && exec /usr/bin/env -0`, file)
	cmd.Dir, cmd.Env = "/", environ(user, runtimeDir(user), nil)
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
	return changes(cmd.Env, out.String()), nil
}

// changes returns the variables, each ended by a zero byte, that are not in env
// with the same value, but for those that a shell keeps for itself, and the one
// that belongs to a terminal.
func changes(env []string, after string) []string {
	var changed []string
	for setting := range strings.SplitSeq(strings.TrimSuffix(after, "\x00"), "\x00") {
		name, _, _ := strings.Cut(setting, "=")
		if !slices.Contains(env, setting) && !slices.Contains([]string{"_", "SHLVL", "PWD", "OLDPWD", "TERM"}, name) {
			changed = append(changed, setting)
		}
	}
	return changed
}
