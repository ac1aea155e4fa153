package qemu

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"

	"al.essio.dev/pkg/shellescape"

	"github.com/sourcery-zone/sandbox/internal/confine"
	"github.com/sourcery-zone/sandbox/internal/process"
)

// LaunchOptions are what a launcher of QEMU needs to know of the start.
type LaunchOptions struct {
	Accel Accel

	// HostNetwork leaves QEMU in this machine's network, with the right to make connections of its own and to listen:
	// what Config.HostNetwork says. Without, it has no interface, and no system call with which to make a socket.
	HostNetwork bool

	// Log gets all output of QEMU; it may be nil.
	Log io.Writer

	// AllowWeak starts QEMU also where nothing can keep it from the user's files.
	AllowWeak bool
}

// Launcher is a process that waits to become a QEMU.
type Launcher struct {
	caps     Capabilities
	options  LaunchOptions
	launcher *confine.Launcher
}

// Ready begins a launcher, for which the time is well used that a start takes before all of QEMU's configuration is
// known. The caller starts QEMU with it, or closes it. QEMU is killed when this process ends, and asked to end
// (SIGTERM) when ctx does.
func Ready(ctx context.Context, caps Capabilities, o LaunchOptions) (*Launcher, error) {
	room, err := caps.room(ctx, o.Accel, o.HostNetwork)
	if err != nil {
		return nil, err
	}
	room.AllowWeak = o.AllowWeak
	program := confine.Program{Path: caps.Binary, Env: environment()}
	spec := confine.Spec{Room: room, Filter: systemCalls(o.HostNetwork)}
	return &Launcher{caps, o, confine.Ready(ctx, program, spec, process.Options{Log: o.Log})}, nil
}

// Close ends a launcher that has not started QEMU. It may be called on nil.
func (l *Launcher) Close() {
	if l != nil {
		l.launcher.Close()
	}
}

// StartOptions are what a start of QEMU needs besides the guest's configuration.
type StartOptions struct {
	// Files has what the configuration's …FD fields name. Start closes them, also if it fails. Nil: none.
	Files *Files

	// Resolver has the content of a resolv.conf(5), which QEMU's user network reads whenever it has changed. It
	// must be in memory (memfd_create(2)), and stays the caller's to close. Without it, the guest's names are not resolved.
	Resolver *os.File
}

// Start starts QEMU, confined: what the configuration names by a path is opened here and inherited. It can be called
// once, with a configuration that is as the LaunchOptions say.
//
// A nil error says that the program runs and not that QEMU is content with its arguments; the process's Err says
// so afterwards, in QEMU's words.
func (l *Launcher) Start(c Config, o StartOptions) (*Process, error) {
	defer l.Close() // which does nothing to a QEMU that runs
	files := cmp.Or(o.Files, &Files{})
	defer files.Close() // which have no content of ours that could be lost
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("composing QEMU's command line: %w", err)
	}
	if c.HostNetwork() != l.options.HostNetwork {
		return nil, fmt.Errorf("starting QEMU: it was to run with this machine's network: %t, and its guest needs that: %t",
			l.options.HostNetwork, c.HostNetwork())
	}
	c, in, err := c.inherit(files, l.caps)
	if err != nil {
		return nil, err
	}
	args, err := c.Args(l.caps)
	if err != nil {
		return nil, fmt.Errorf("composing QEMU's command line: %w", err)
	}
	if c.HostNetwork() && o.Resolver != nil {
		in.lend(confine.File{File: o.Resolver, Reopen: confine.Read, Link: resolverFile})
	}
	p, walls, err := l.launcher.Start(args, in.list)
	if err != nil {
		return nil, err
	}
	return &Process{append([]string{l.caps.Binary}, args...), in.listed, walls, p}, nil
}

// resolverFile is where QEMU's user network looks for name servers.
const resolverFile = "/etc/resolv.conf"

// environment is all that QEMU's environment holds: none of the caller's secrets, and a language in which its
// complaints can be recognised.
func environment() []string { return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"} }

// room is where this QEMU runs: with itself, its firmware and, if it is the accelerator, KVM.
func (caps Capabilities) room(ctx context.Context, accel Accel, hostNetwork bool) (*confine.Room, error) {
	parts := caps.Parts
	if parts.Program == "" {
		var err error
		if parts, err = confine.FindParts(ctx, caps.Binary); err != nil {
			return nil, err
		}
	}
	r := &confine.Room{Paths: parts.Paths(), Executes: parts.Executes(), Network: hostNetwork}
	for _, dir := range caps.Data {
		if _, err := os.Stat(dir); err == nil { // it lists those that are not installed, too
			r.Paths = append(r.Paths, dir)
		}
	}
	if accel == AccelKVM {
		r.Devices = []string{kvmDevice}
	}
	var err error
	r.User, err = confine.ChooseUser(os.Getpid(), r.Devices...)
	return r, err
}

// Walls tells what would keep this QEMU from the rest of the machine, if it does without this machine's network. The error is a
// *confine.WeakError if that is too little.
func Walls(ctx context.Context, caps Capabilities) (confine.Report, error) {
	room, err := caps.room(ctx, AccelTCG, false)
	if err != nil {
		return confine.Report{}, err
	}
	return confine.Examine(ctx, confine.Spec{Room: room, Filter: systemCalls(false)})
}

// ShellQuote returns argv as one line that a POSIX shell reads back as the same arguments.
func ShellQuote(argv []string) string { return shellescape.QuoteCommand(argv) }
