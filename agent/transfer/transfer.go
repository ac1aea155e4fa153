package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/internal/wire"
	"github.com/sourcery-zone/sandbox/internal/tree"
)

// Options say how files are copied. The zero value copies with the rights of the
// image's user.
type Options struct {
	// User is the user of the guest with whose rights its files are read or
	// written; empty means the image's own.
	User string
	// Shared are the directories of this machine that a guest may write to, each
	// with a name for whoever that is, which errors say. No link in them is
	// followed. One that does not exist is of no account.
	Shared map[string]string
	// Note is told, in a sentence without its full stop, what a copy has left
	// out: sockets, pipes and devices in a tree. What it is told may be the
	// guest's own words. It may be nil. It may be called by another goroutine,
	// and where a copy was given up, until the pipe or device that it reads from
	// ends.
	Note func(text string)
}

// notFound is how a command ends that the guest does not have, as an agent says
// of transfers that knows none, and is too old to tell it before. No transfer
// ends so.
const notFound = 127

// maxWords bounds what the guest says to a copy, in bytes: an error, or a few
// notes.
const maxWords = 4 << 10

var errUnwanted = errors.New("the rest is not wanted")

// To copies source, a path of this machine, to dest, a path of the guest that
// starts at its user's home. A source that is "." or ends in "/." is what the
// directory holds. A pipe or device that is named is read to its end.
//
// The client stays open. After an error the destination is there in parts.
func To(ctx context.Context, client *agent.Client, source, dest string, o Options) error {
	name, err := nameHere(source)
	if err != nil {
		return err
	}
	packing := tree.PackOptions{Rules: o.rules(), LeftOut: o.leftOut}
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := tree.Pack(ctx, w, source, name, packing)
		packed <- err // first, so that it is there when the guest has seen the end
		w.CloseWithError(err)
	}()
	err = o.run(ctx, client, r, io.Discard, wire.TransferReceive, dest, name)
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

// From copies source, a path of the guest that starts at its user's home, to
// dest, a path of this machine. A source that is "." or ends in "/." is what the
// directory holds. A dest that is a pipe or device is written to, and one that
// is a symbolic link is refused, with what it leads to.
//
// The client stays open. After an error the destination is there in parts.
func From(ctx context.Context, client *agent.Client, source, dest string, o Options) error {
	name := nameThere(source)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		err := o.run(ctx, client, nil, w, wire.TransferSend, source, name)
		w.CloseWithError(err) // nil is the end of the stream
		sent <- err
	}()
	err := tree.Unpack(ctx, r, name, dest, tree.UnpackOptions{Rules: o.rules(), LeftOut: o.leftOut})
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

// Extract unpacks the tar archive that it reads from archive, of whatever
// program, into dest, a directory of the guest that starts at its user's home.
// Nothing is known of who reads from archive after an error: that Read may
// still be under way.
func Extract(ctx context.Context, client *agent.Client, archive io.Reader, dest string, o Options) error {
	return o.run(ctx, client, archive, nil, wire.TransferReceiveArchive, dest)
}

// Archive writes source, a path of the guest that starts at its user's home, to
// archive, as a tar archive that every program understands. What is in it is the
// guest's word, and to be unpacked with care.
func Archive(ctx context.Context, client *agent.Client, source string, archive io.Writer, o Options) error {
	return o.run(ctx, client, nil, archive, wire.TransferSendArchive, source, nameThere(source))
}

func (o Options) rules() tree.Rules {
	shared := make(map[tree.ID]string, len(o.Shared))
	for dir, name := range o.Shared {
		if id, err := tree.Identify(dir); err == nil { // else it is gone
			shared[id] = name
		}
	}
	return tree.Rules{Shared: shared}
}

func (o Options) note(text string) {
	if o.Note != nil {
		o.Note(text)
	}
}

func (o Options) leftOut(path string) {
	o.note(path + " is no file, directory or link, and is left out")
}

// run runs the guest's side of a copy, in the user's home. What it writes to its
// standard error becomes its error, or notes.
func (o Options) run(ctx context.Context, client *agent.Client, in io.Reader, out io.Writer, mode string, args ...string) error {
	if err := client.Require(ctx, agent.FeatureCopy); err != nil {
		return err
	}
	cmd := client.Command(ctx, wire.TransferArgs(mode, args...)...)
	stderr := &limited{most: maxWords}
	cmd.Self, cmd.User, cmd.Stdin, cmd.Stdout, cmd.Stderr = true, o.User, in, out, stderr
	err := cmd.Run()
	words := strings.TrimSpace(stderr.String())
	exit, ended := errors.AsType[*agent.ExitError](err)
	switch {
	case ended && exit.Code == notFound:
		return &agent.UnsupportedError{Feature: agent.FeatureCopy}
	case ended && words != "":
		return fmt.Errorf("in the sandbox: %s", words)
	case err == nil && words != "":
		for line := range strings.Lines(words) {
			o.note(strings.TrimSpace(line))
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

// nameThere is what a source of the guest is called in the stream, or "." for
// what is in a directory.
func nameThere(source string) string {
	clean := path.Clean(source)
	if path.Base(source) == "." || path.Base(clean) == ".." || clean == "/" || strings.HasSuffix(source, "/.") {
		return "."
	}
	return path.Base(clean)
}

// nameHere is the same of a source of this machine.
func nameHere(source string) (string, error) {
	if source == "." || strings.HasSuffix(source, "/.") {
		return ".", nil
	}
	abs, err := filepath.Abs(source)
	if abs == "/" {
		return ".", err
	}
	return filepath.Base(abs), err
}
