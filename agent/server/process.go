//go:build linux

package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// Exit statuses of a command that never ran, as shells and Docker have them.
const (
	exitRefused       = 125
	exitNotExecutable = 126
	exitNotFound      = 127
)

// startError is why a process could not be started.
type startError struct {
	status  int
	message string
}

func (e *startError) Error() string { return e.message }

// processSpec describes a process to start.
type processSpec struct {
	user User
	argv []string
	// path is the program's file; empty means that argv[0] is looked up.
	path string
	env  []string
	dir  string // absolute
	pty  bool
	size windowSize
}

type windowSize struct{ width, height uint32 }

// process is a running process with our ends of its standard streams.
type process struct {
	*os.Process
	// stdin and stdout are the same file if there is a terminal; stderr is
	// then nil.
	stdin, stdout, stderr *os.File
}

// Starter starts processes for users. The zero value is ready for use.
type Starter struct {
	// OOMScore is this program's own oom_score_adj, if it has one that the
	// processes it starts must not inherit.
	OOMScore string

	// shield is held while the program lowers its own protection against the
	// kernel's out-of-memory killer.
	shield sync.Mutex
}

// start starts a process. Its error is a *startError if the request is at
// fault.
func (s *Starter) start(spec processSpec) (*process, error) {
	path, err := resolve(spec)
	if err != nil {
		return nil, err
	}
	streams, err := openStreams(spec)
	if err != nil {
		return nil, fmt.Errorf("cannot make the standard streams of %s: %w", spec.argv[0], err)
	}
	defer streams.closeTheirs()

	attr := &os.ProcAttr{
		Dir:   spec.dir,
		Env:   spec.env,
		Files: streams.theirs[:],
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: spec.pty, Ctty: 0},
	}
	if os.Geteuid() == 0 {
		attr.Sys.Credential = credential(spec.user)
	} else if spec.user.UID != os.Getuid() {
		streams.closeOurs()
		return nil, &startError{exitRefused, fmt.Sprintf("cannot start a process for the user %s: the agent is not root", spec.user.Name)}
	}
	started, err := s.unshielded(func() (*os.Process, error) {
		return os.StartProcess(path, spec.argv, attr)
	})
	if err != nil {
		streams.closeOurs()
		return nil, explainStart(spec, path, err)
	}
	return &process{started, streams.ours[0], streams.ours[1], streams.ours[2]}, nil
}

func credential(user User) *syscall.Credential {
	c := &syscall.Credential{Uid: uint32(user.UID), Gid: uint32(user.GID)}
	for _, group := range user.Groups {
		c.Groups = append(c.Groups, uint32(group))
	}
	return c
}

// Start starts a command of this program's own, as what it starts for users:
// without its protection against the kernel's out-of-memory killer.
func (s *Starter) Start(cmd *exec.Cmd) error {
	_, err := s.unshielded(func() (*os.Process, error) { return nil, cmd.Start() })
	return err
}

// unshielded runs start with the ordinary chance of being killed when memory
// runs out. Only the service itself is worth more than what it starts.
func (s *Starter) unshielded(start func() (*os.Process, error)) (*os.Process, error) {
	if s.OOMScore == "" {
		return start()
	}
	const file = "/proc/self/oom_score_adj"
	s.shield.Lock()
	defer s.shield.Unlock()
	// Failure leaves a child that is protected too well, and no other harm.
	_ = os.WriteFile(file, []byte("0"), 0o644)
	defer func() { _ = os.WriteFile(file, []byte(s.OOMScore), 0o644) }()
	return start()
}

// resolve checks the working directory and finds the program's file.
func resolve(spec processSpec) (string, error) {
	info, err := os.Stat(spec.dir)
	switch {
	case err != nil:
		return "", &startError{exitNotExecutable, fmt.Sprintf("cannot enter the working directory %s: %v", spec.dir, unwrapPath(err))}
	case !info.IsDir():
		return "", &startError{exitNotExecutable, fmt.Sprintf("the working directory %s is not a directory", spec.dir)}
	case !mayUse(spec.user, info):
		return "", &startError{exitNotExecutable, fmt.Sprintf("the user %s may not enter the working directory %s", spec.user.Name, spec.dir)}
	case spec.path != "":
		return spec.path, checkProgram(spec.user, spec.path, spec.path)
	}
	return lookPath(spec)
}

// lookPath finds argv[0] as execvp(3) does, but for the user and in the
// environment and directory of the process to be.
func lookPath(spec processSpec) (string, error) {
	name := spec.argv[0]
	if strings.Contains(name, "/") {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(spec.dir, path)
		}
		return path, checkProgram(spec.user, name, path)
	}
	if name == "" { // and not the directories themselves
		return "", &startError{exitNotFound, "the command's name is empty: command not found"}
	}
	notFound := &startError{exitNotFound, fmt.Sprintf("%s: command not found (if only your profile knows where it is: --login)", name)}
	var denied error
	for _, dir := range filepath.SplitList(getenv(spec.env, "PATH")) {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(spec.dir, dir)
		}
		path := filepath.Join(dir, name)
		err := checkProgram(spec.user, name, path)
		if err == nil {
			return path, nil
		}
		if e, ok := errors.AsType[*startError](err); ok && e.status == exitNotExecutable && denied == nil {
			denied = err
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", notFound
}

func checkProgram(user User, name, path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return &startError{exitNotFound, fmt.Sprintf("%s: no such file", name)}
	case err != nil:
		return &startError{exitNotExecutable, fmt.Sprintf("%s: %v", name, unwrapPath(err))}
	case info.IsDir():
		return &startError{exitNotExecutable, fmt.Sprintf("%s: is a directory", path)}
	case !mayUse(user, info):
		return &startError{exitNotExecutable, fmt.Sprintf("%s: permission denied (its mode does not let the user %s execute it)", path, user.Name)}
	}
	return nil
}

// explainStart turns what the kernel said into something to act on.
func explainStart(spec processSpec, path string, err error) error {
	switch {
	case errors.Is(err, unix.ENOEXEC):
		return &startError{exitNotExecutable, fmt.Sprintf("%s: not a program that the kernel can run (a script needs a first line such as #!/bin/sh)", path)}
	case errors.Is(err, unix.E2BIG):
		bytes, longest := sizes(spec.argv, spec.env)
		return &startError{exitNotExecutable, fmt.Sprintf("%s: argument list too long (E2BIG): its arguments and variables are %d bytes, and the longest of them %d; the guest's kernel takes a quarter of the stack's limit (ulimit -s), and no single one of 128 KiB",
			spec.argv[0], bytes, longest)}
	case errors.Is(err, fs.ErrNotExist):
		return &startError{exitNotExecutable, fmt.Sprintf("%s: the interpreter or loader that it names does not exist", path)}
	default:
		return &startError{exitNotExecutable, fmt.Sprintf("%s: %v", spec.argv[0], unwrapPath(err))}
	}
}

// sizes returns the length of all strings of the lists, with the byte that ends
// each, and of the longest one.
func sizes(lists ...[]string) (all, longest int) {
	for _, list := range lists {
		for _, text := range list {
			all += len(text) + 1
			longest = max(longest, len(text)+1)
		}
	}
	return all, longest
}

// unwrapPath leaves out the path of an error that names it another time.
func unwrapPath(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// streams are both ends of a process's standard input, output and error.
type streams struct{ ours, theirs [3]*os.File }

func openStreams(spec processSpec) (*streams, error) {
	s := &streams{}
	if spec.pty {
		return s, s.openTerminal(spec)
	}
	for i := range s.theirs {
		r, w, err := os.Pipe()
		if err != nil {
			s.closeTheirs()
			s.closeOurs()
			return nil, err
		}
		s.ours[i], s.theirs[i] = r, w
		if i == 0 {
			s.ours[i], s.theirs[i] = w, r
		}
	}
	return s, nil
}

func (s *streams) openTerminal(spec processSpec) error {
	master, slave, err := pty.Open()
	if err != nil {
		return err
	}
	// The library has made the file block; ours must take deadlines, so it is
	// opened once more through its descriptor.
	defer master.Close()
	ours, err := pollable(master)
	if err == nil {
		err = errors.Join(setSize(ours, spec.size), prepareTerminal(slave, spec.user))
	}
	if err != nil {
		slave.Close()
		return err
	}
	s.ours = [3]*os.File{ours, ours, nil}
	s.theirs = [3]*os.File{slave, slave, slave}
	return nil
}

func (s *streams) closeTheirs() { closeAll(s.theirs) }
func (s *streams) closeOurs()   { closeAll(s.ours) }

// closeAll closes files of which some may be the same and some nil.
func closeAll(files [3]*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}
