package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/tree"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

func cpCommand() *cli.Command {
	return &cli.Command{
		Name:      "cp",
		Usage:     "copy files between this machine and a running sandbox",
		ArgsUsage: "NAME:PATH DESTINATION|- | SOURCE|- NAME:PATH",
		Description: `Modes, times, holes and symbolic links are kept, and directories copied whole;
owners are not kept. Paths in the sandbox start at its user's home. A copy goes
into a destination that is a directory, and otherwise gets the destination's name;
SOURCE/. copies what is in a directory. A pipe or device that is named is read to
its end or written to. Nothing is written outside of the destination, whatever
the sandbox sends: on this machine, a link that ends a path, or lies in a
directory that a sandbox shares, is refused with what to write instead. With -
instead of a path of this machine, a tar archive is written to standard output or
read from standard input.

EXAMPLES
   sandbox cp work:report.pdf .
   sandbox cp src work:                     makes src in the home
   sandbox cp src/. work:/tmp/build         what src holds, into /tmp/build
   sandbox cp work:/etc - | tar t
   sandbox cp <(git diff) work:patch
   sandbox cp --user root nginx.conf work:/etc/nginx/`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "read or write as this `USER` of the guest (default: the image's)"},
		},
		OnUsageError: usageError,
		Action:       cp,
	}
}

func cp(c *cli.Context) error {
	if c.NArg() != 2 {
		return &exitCode{exitUsage, errors.New("sandbox cp needs a source and a destination, one of them as NAME:PATH")}
	}
	from, to := parseEndpoint(c.Args().Get(0)), parseEndpoint(c.Args().Get(1))
	name := from.sandbox + to.sandbox
	switch {
	case from.sandbox != "" && to.sandbox != "":
		return &exitCode{exitUsage, errors.New("sandbox cp does not copy from one sandbox to another: use sandbox cp A:PATH - | sandbox cp - B:PATH")}
	case name == "":
		return &exitCode{exitUsage, errors.New("neither the source nor the destination is in a sandbox: write one of them as NAME:PATH")}
	case to.path == "-" && to.sandbox == "" && isTerminal(os.Stdout):
		return &exitCode{exitUsage, errors.New("a tar archive would spoil the terminal: send it to a file or a program")}
	}
	host, err := openHost()
	if err != nil {
		return err
	}
	s, err := host.Get(name)
	if err != nil {
		return err
	}
	client, err := s.Dial(c.Context)
	if err != nil {
		return err
	}
	defer client.Close()
	config, err := s.Config()
	if err != nil {
		return err
	}
	shared, err := sharedDirs(host)
	if err != nil {
		return err
	}
	k := &copier{client: client, user: c.String("user"), rules: tree.Rules{Shared: shared}, image: config.Image.String(), stderr: notes()}
	if from.sandbox != "" {
		err = k.download(c.Context, from.path, to.path)
	} else {
		err = k.upload(c.Context, from.path, to.path)
	}
	if err != nil {
		return fmt.Errorf("copying %s to %s: %w", c.Args().Get(0), c.Args().Get(1), err)
	}
	return nil
}

// endpoint is one side of a copy.
type endpoint struct{ sandbox, path string }

// parseEndpoint understands NAME:PATH; a path of this machine that looks so is
// written with a slash before the colon.
func parseEndpoint(s string) endpoint {
	name, guest, ok := strings.Cut(s, ":")
	if !ok || layout.CheckName(name) != nil {
		return endpoint{path: s}
	}
	switch {
	case guest == "" || guest == "~":
		guest = "."
	case strings.HasPrefix(guest, "~/"):
		guest = "." + guest[1:]
	}
	return endpoint{name, guest}
}

// copier moves files as tar streams between package tree here and in the agent.
type copier struct {
	client *agent.Client
	user   string
	rules  tree.Rules
	image  string
	stderr io.Writer
}

func (k *copier) leftOut(path string) {
	fmt.Fprintf(k.stderr, "sandbox: note: %s is no file, directory or link, and is left out\n", path)
}

// notFound is how a command ends that the guest does not have, as an agent that
// knows no transfers says of them. No transfer ends so.
const notFound = 127

// run runs the guest's side of the copy, in the user's home. What it writes to
// its standard error becomes its error, or notes.
func (k *copier) run(ctx context.Context, in io.Reader, out io.Writer, mode string, args ...string) error {
	cmd := k.client.Command(ctx, agent.TransferArgs(mode, args...)...)
	stderr := &limited{most: 4 << 10}
	cmd.Self, cmd.User, cmd.Stdin, cmd.Stdout, cmd.Stderr = true, k.user, in, out, stderr
	err := cmd.Run()
	words := strings.TrimSpace(stderr.String())
	exit, ended := errors.AsType[*agent.ExitError](err)
	switch {
	case ended && exit.Code == notFound:
		return fmt.Errorf("the agent of the image %s is too old to copy files: build the image anew (sandbox image build) and make a new sandbox from it", k.image)
	case ended && words != "":
		return fmt.Errorf("in the sandbox: %s", words)
	case err == nil && words != "":
		for line := range strings.Lines(words) {
			fmt.Fprintf(k.stderr, "sandbox: note: %s\n", strings.TrimSpace(line))
		}
	}
	return err
}

// limited keeps the beginning of what is written to it.
type limited struct {
	bytes.Buffer
	most int
}

func (l *limited) Write(p []byte) (int, error) {
	l.Buffer.Write(p[:min(len(p), l.most-l.Len())])
	return len(p), nil
}

// download copies from the guest's path to dest of this machine.
func (k *copier) download(ctx context.Context, source, dest string) error {
	source, name := splitSource(source)
	if dest == "-" {
		return k.run(ctx, nil, os.Stdout, agent.TransferSendArchive, source, name)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		err := k.run(ctx, nil, w, agent.TransferSend, source, name)
		w.CloseWithError(err) // nil is the end of the stream
		sent <- err
	}()
	err := tree.Unpack(ctx, r, name, dest, tree.UnpackOptions{Rules: k.rules, LeftOut: k.leftOut})
	if err == nil {
		_, err = io.Copy(io.Discard, r) // the padding that ends an archive
	}
	if err != nil {
		r.CloseWithError(errUnwanted)
		cancel() // the guest's side, whose stream is not wanted any more
	}
	// The guest's own word is better than what became of it in the stream.
	if failed := <-sent; failed != nil && (err == nil || errors.Is(err, failed)) {
		return failed
	}
	return err
}

var errUnwanted = errors.New("the rest is not wanted")

// splitSource returns a path for the guest and what it is called in the stream,
// which is "." for what is in a directory.
func splitSource(source string) (typed, name string) {
	clean := path.Clean(source)
	if path.Base(source) == "." || path.Base(clean) == ".." || clean == "/" || strings.HasSuffix(source, "/.") {
		return source, "."
	}
	return source, path.Base(clean)
}

// upload copies source of this machine to the guest's path dest.
func (k *copier) upload(ctx context.Context, source, dest string) error {
	if source == "-" {
		return k.run(ctx, os.Stdin, nil, agent.TransferReceiveArchive, dest)
	}
	name, err := uploadName(source)
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := tree.Pack(ctx, w, source, name, tree.PackOptions{Rules: k.rules, LeftOut: k.leftOut})
		packed <- err // first, so that it is there when the guest has seen the end
		w.CloseWithError(err)
	}()
	err = k.run(ctx, r, io.Discard, agent.TransferReceive, dest, name)
	r.CloseWithError(errUnwanted)
	if err != nil {
		select {
		case failed := <-packed:
			if failed != nil && !errors.Is(failed, errUnwanted) {
				return failed // the reason, and what the guest says its consequence
			}
		default: // a pipe may never come to its end
		}
		return err
	}
	return <-packed
}

// uploadName is what a source of this machine is called in the guest, or "." for
// what is in a directory.
func uploadName(source string) (string, error) {
	if source == "." || strings.HasSuffix(source, "/.") {
		return ".", nil
	}
	abs, err := filepath.Abs(source)
	if abs == "/" {
		return ".", err
	}
	return filepath.Base(abs), err
}

// sharedDirs are the directories that sandboxes can write to, with their names.
func sharedDirs(host *machine.Host) (map[tree.ID]string, error) {
	all, err := host.List()
	if err != nil {
		return nil, err
	}
	shared := map[tree.ID]string{}
	for _, s := range all {
		config, err := s.Config()
		if err != nil {
			continue // broken: it shares nothing any more that we could know of
		}
		dirs := []string{s.Files().Home()}
		for _, share := range config.Shares {
			if !share.ReadOnly {
				dirs = append(dirs, share.Source)
			}
		}
		for _, dir := range dirs {
			if id, err := tree.Identify(dir); err == nil { // else it is gone
				shared[id] = s.Name
			}
		}
	}
	return shared, nil
}
