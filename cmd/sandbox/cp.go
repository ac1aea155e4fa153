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
)

func cpCommand() *cli.Command {
	return &cli.Command{
		Name:      "cp",
		Usage:     "copy files between this machine and a running sandbox",
		ArgsUsage: "NAME:PATH DESTINATION|- | SOURCE|- NAME:PATH",
		Description: `Modes, times and symbolic links are kept, and directories copied whole; owners
are not kept. Paths in the sandbox start at its user's home. A copy goes into a
destination that is a directory, and otherwise gets the destination's name;
SOURCE/. copies what is in a directory. Nothing is written outside of the
destination, whatever the sandbox sends. With - instead of a path of this
machine, a tar archive is written to standard output or read from standard input.

EXAMPLES
   sandbox cp work:report.pdf .
   sandbox cp src work:                     makes src in the home
   sandbox cp src/. work:/tmp/build         what src holds, into /tmp/build
   sandbox cp work:/etc - | tar t
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
	k := &copier{client: client, user: c.String("user"), stderr: os.Stderr}
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
	if !ok || machine.CheckName(name) != nil {
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

// copier moves files as tar streams by the tar of the guest.
type copier struct {
	client *agent.Client
	user   string
	stderr io.Writer
}

func (k *copier) skipped(path string) {
	fmt.Fprintf(k.stderr, "sandbox: note: %q is no file, directory or link, and is left out\n", path)
}

// run runs a script with arguments in the guest, in the user's home. What it
// writes to its standard error becomes its error.
func (k *copier) run(ctx context.Context, in io.Reader, out io.Writer, script string, args ...string) error {
	cmd := k.client.Command(ctx, append([]string{"sh", "-c", script, "sh"}, args...)...)
	stderr := &limited{most: 4 << 10}
	cmd.User, cmd.Stdin, cmd.Stdout, cmd.Stderr = k.user, in, out, stderr
	err := cmd.Run()
	if exit := (*agent.ExitError)(nil); errors.As(err, &exit) && stderr.Len() > 0 {
		return errors.New(printable(strings.TrimSpace(stderr.String())))
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

// printable keeps a guest from controlling the terminal with its messages.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (r < ' ' || (r >= 0x7f && r < 0xa0)) {
			return '?'
		}
		return r
	}, s)
}

// sendScript packs the file named $2 of the directory $1.
const sendScript = `cd -- "$1" || exit
[ -e "$2" ] || [ -L "$2" ] || { echo "there is no $2 in $PWD in the sandbox" >&2; exit 1; }
exec tar --format=posix -cf - -- "$2"`

// download copies from the guest's path to dest of this machine.
func (k *copier) download(ctx context.Context, source, dest string) error {
	dir, base := splitSource(source)
	if dest == "-" {
		return k.run(ctx, nil, os.Stdout, sendScript, dir, base)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		err := k.run(ctx, nil, w, sendScript, dir, base)
		w.CloseWithError(err) // nil is the end of the stream
		sent <- err
	}()
	err := tree.Unpack(r, base, dest, k.skipped)
	if err == nil {
		_, err = io.Copy(io.Discard, r) // the padding that ends an archive
	}
	if err != nil {
		r.CloseWithError(errUnwanted)
		cancel() // tar, whose stream is not wanted any more
	}
	// The guest's own word is better than what became of it in the stream.
	if failed := <-sent; failed != nil && (err == nil || errors.Is(err, failed)) {
		return failed
	}
	return err
}

var errUnwanted = errors.New("the rest is not wanted")

// splitSource returns a directory and a name in it; the name is "." for what
// is in a directory.
func splitSource(source string) (dir, base string) {
	clean := path.Clean(source)
	if path.Base(source) == "." || path.Base(clean) == ".." || clean == "/" || strings.HasSuffix(source, "/.") {
		return clean, "."
	}
	return path.Dir(clean), path.Base(clean)
}

// lookScript says what $1 is, or else its parent.
const lookScript = `if [ -d "$1" ]; then echo directory
elif [ -e "$1" ] || [ -L "$1" ]; then echo file
elif [ -d "$2" ]; then echo missing
else echo "there is no directory $2 in the sandbox" >&2; exit 1; fi`

// receiveScript unpacks into the directory $1.
const receiveScript = `cd -- "$1" && exec tar --no-same-owner -xpf -`

// upload copies source of this machine to the guest's path dest.
func (k *copier) upload(ctx context.Context, source, dest string) error {
	parent, base := splitDest(dest)
	var out bytes.Buffer
	if err := k.run(ctx, nil, &out, lookScript, guestPath(dest), guestPath(parent)); err != nil {
		return err
	}
	is := strings.TrimSpace(out.String())
	if source == "-" {
		if is != "directory" {
			return errors.New("a tar archive needs a directory of the sandbox as its destination")
		}
		return k.run(ctx, os.Stdin, nil, receiveScript, guestPath(dest))
	}
	info, err := os.Lstat(source)
	if err != nil {
		return err
	}
	dir, name, err := place(info.IsDir(), source, dest, parent, base, is)
	if err != nil {
		return err
	}
	return k.send(ctx, source, guestPath(dir), name)
}

func splitDest(dest string) (parent, base string) {
	parent, base = path.Split(strings.TrimRight(dest, "/"))
	if parent == "" {
		parent = "."
	}
	return parent, base
}

// place decides in which directory of the guest a copy gets which name.
func place(isDir bool, source, dest, parent, base, is string) (dir, name string, err error) {
	contents := isDir && (strings.HasSuffix(source, "/.") || source == ".")
	switch {
	case is == "directory" && contents:
		return dest, ".", nil
	case is == "directory":
		abs, err := filepath.Abs(source)
		return dest, filepath.Base(abs), err
	case is == "file" && isDir:
		return "", "", errors.New("the destination is a file, but the source is a directory")
	case !isDir && strings.HasSuffix(dest, "/"):
		return "", "", errors.New("the destination is not a directory of the sandbox: make it first, or leave out the slash")
	}
	return parent, base, nil
}

// guestPath keeps a path from being taken for an option.
func guestPath(p string) string {
	if path.IsAbs(p) {
		return p
	}
	return "./" + p
}

func (k *copier) send(ctx context.Context, source, dir, name string) error {
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := tree.Pack(w, source, name, k.skipped)
		w.CloseWithError(err)
		packed <- err
	}()
	err := k.run(ctx, r, io.Discard, receiveScript, dir)
	r.CloseWithError(errUnwanted)
	if failed := <-packed; failed != nil && !errors.Is(failed, errUnwanted) {
		return failed
	}
	return err
}
