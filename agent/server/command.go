//go:build linux

package server

import (
	"context"
	"encoding/json"
	"io"
	"path/filepath"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
	"golang.org/x/crypto/ssh"
)

// runArgv makes a POSIX shell that has read its profile become the program in
// its arguments, which pass through it untouched.
const runArgv = `exec "$0" "$@"`

// command is what a request asks to be run, before it is known for whom.
type command struct {
	user string
	argv []string // of the program itself, if script is empty
	// script is for the user's shell.
	script string
	login  bool
	sftp   bool
	self   bool // the agent's own program with argv
	env    []string
	dir    string
}

// ownSubsystem returns what serves a subsystem that only the host gets, if the request asks for one.
func (s *session) ownSubsystem(request *ssh.Request) func(context.Context, io.ReadWriter, Controller) {
	var subsystem struct{ Name string }
	if s.server.Controller == nil || request.Type != "subsystem" || ssh.Unmarshal(request.Payload, &subsystem) != nil {
		return nil
	}
	switch subsystem.Name {
	case wire.SubsystemControl:
		return serveControl
	case wire.SubsystemWorkspace:
		return serveWorkspace
	}
	return nil
}

// parse understands the requests that start a process.
func (s *session) parse(request *ssh.Request) (command, bool) {
	var text struct{ Value string }
	switch request.Type {
	case "shell":
		return command{login: true}, true
	case "exec":
		if ssh.Unmarshal(request.Payload, &text) != nil {
			return command{}, false
		}
		if text.Value == "" {
			return command{login: true}, true
		}
		return command{script: text.Value}, true
	case "subsystem":
		known := ssh.Unmarshal(request.Payload, &text) == nil && text.Value == "sftp"
		return command{sftp: true}, known
	case wire.RequestExec:
		if s.server.Controller == nil {
			return command{}, false // it may name any user
		}
		var exact wire.ExecRequest
		if json.Unmarshal(s.whole(request.Payload), &exact) != nil {
			return command{}, false
		}
		return command{
			user: exact.User, argv: plain(exact.Argv), login: exact.Login, self: exact.Self,
			env: plain(exact.Env), dir: string(exact.Dir),
		}, true
	}
	return command{}, false
}

// whole joins the last part of a request with those that came before it.
func (s *session) whole(last []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := append(s.parts, last...)
	s.parts = nil
	return all
}

func plain(raw []wire.RawString) []string {
	strings := make([]string, len(raw))
	for i, s := range raw {
		strings[i] = string(s)
	}
	return strings
}

// startProcess waits until commands can run and starts one.
func (s *session) startProcess(ctx context.Context, wanted command) (*process, error) {
	if err := s.server.Ready(ctx); err != nil {
		return nil, err
	}
	user, err := s.server.Users.Lookup(wanted.user)
	if err != nil {
		return nil, err
	}
	settings := s.server.Env(ctx, user) // before the lock: it may run a program
	s.mu.Lock()
	defer s.mu.Unlock()
	spec := s.spec(user, settings, wanted)
	p, err := s.server.Processes.start(spec)
	if err != nil {
		return nil, err
	}
	s.process = p
	if ctx.Err() != nil {
		s.signal(wire.SignalNumber("HUP")) // the other side left meanwhile
	}
	return p, nil
}

// spec completes a command with what belongs to its user and session.
func (s *session) spec(user User, settings []string, wanted command) processSpec {
	spec := processSpec{user: user, dir: wanted.dir}
	if !filepath.IsAbs(spec.dir) {
		spec.dir = filepath.Join(user.Home, spec.dir)
	}
	spec.env = environ(user, runtimeDir(user), settings)
	if s.terminal != nil && !wanted.sftp {
		spec.pty = true
		spec.size = windowSize{s.terminal.Width, s.terminal.Height}
		term := knownTerm(s.terminal.Term, terminfoDirs(user, spec.env))
		spec.env = setenv(spec.env, "TERM="+term)
	}
	for _, list := range [][]string{s.env, wanted.env} {
		for _, setting := range knownLocales("/", list) {
			spec.env = setenv(spec.env, setting)
		}
	}

	shell := filepath.Base(user.Shell)
	switch {
	case wanted.sftp:
		spec.path, spec.argv = s.server.Self, []string{"sandbox-agent", sftpMode}
	case wanted.self:
		spec.path, spec.argv = s.server.Self, wanted.argv
	case wanted.script != "":
		spec.path, spec.argv = user.Shell, []string{shell, "-c", wanted.script}
	case len(wanted.argv) == 0:
		spec.path, spec.argv = user.Shell, []string{"-" + shell}
	case wanted.login:
		spec.path, spec.argv = user.Shell, append([]string{shell, "-l", "-c", runArgv}, wanted.argv...)
	default:
		spec.argv = wanted.argv
	}
	return spec
}

func (s *session) hasTerminal() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.terminal != nil
}
