package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/transfer"
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
		return usage("sandbox cp needs a source and a destination, one of them as NAME:PATH")
	}
	from, to := parseEndpoint(c.Args().Get(0)), parseEndpoint(c.Args().Get(1))
	name := from.sandbox + to.sandbox
	switch {
	case from.sandbox != "" && to.sandbox != "":
		return usage("sandbox cp does not copy from one sandbox to another: use sandbox cp A:PATH - | sandbox cp - B:PATH")
	case name == "":
		return usage("neither the source nor the destination is in a sandbox: write one of them as NAME:PATH")
	case to.path == "-" && to.sandbox == "" && isTerminal(os.Stdout):
		return usage("a tar archive would spoil the terminal: send it to a file or a program")
	}
	host, err := machine.Open()
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
	shared, err := host.SharedDirs()
	if err != nil {
		return err
	}
	stderr := notes()
	o := transfer.Options{User: c.String("user"), Shared: shared, Note: func(text string) {
		fmt.Fprintf(stderr, "sandbox: note: %s\n", text)
	}}
	switch {
	case from.sandbox == "" && from.path == "-":
		err = transfer.Extract(c.Context, client, os.Stdin, to.path, o)
	case from.sandbox == "":
		err = transfer.To(c.Context, client, from.path, to.path, o)
	case to.path == "-":
		err = transfer.Archive(c.Context, client, from.path, os.Stdout, o)
	default:
		err = transfer.From(c.Context, client, from.path, to.path, o)
	}
	if _, old := errors.AsType[*agent.UnsupportedError](err); old {
		err = fmt.Errorf("%w (sandbox image build; this one has %s)", err, config.Image)
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
