package main

import (
	"errors"
	"fmt"

	units "github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/machine"
)

func resizeCommand() *cli.Command {
	return &cli.Command{
		Name:      "resize",
		Usage:     "give a sandbox more or less memory, or a larger disk",
		ArgsUsage: "NAME",
		Description: `A running sandbox gives memory to the host, and gets it back, until it stops: it can
have at least 256M, and at most what it was started with. The memory of one that does
not run is changed for good, in either direction.

A disk grows for good, with the file system on it, whether the sandbox runs or not.
It never shrinks. A sandbox without a disk gets one at its next start.

EXAMPLES
   sandbox resize --memory 1G work          while it runs: the host has the rest
   sandbox resize --disk 40G work
   sandbox stop work && sandbox resize --memory 8G work && sandbox start work`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "memory", Aliases: []string{"m"}, Usage: "`SIZE` of the memory, such as 512M or 4G"},
			&cli.StringFlag{Name: "disk", Usage: "`SIZE` of the disk, such as 40G, no smaller than it is"},
		},
		OnUsageError: usageError,
		Action:       resizeAction,
	}
}

func resizeAction(c *cli.Context) error {
	o, err := resizeOptions(c)
	if err != nil {
		return usage("%w", err)
	}
	s, err := named(c)
	if err != nil {
		return err
	}
	sizes, err := s.Resize(c.Context, o)
	if err != nil {
		return fmt.Errorf("resize %s: %w", s.Name, err)
	}
	fmt.Fprintln(notes(), sizesText(o, sizes))
	fmt.Fprintln(c.App.Writer, s.Name)
	return nil
}

func resizeOptions(c *cli.Context) (o machine.Sizes, err error) {
	if !c.IsSet("memory") && !c.IsSet("disk") {
		return o, errors.New("sandbox resize needs --memory SIZE, --disk SIZE or both (sandbox resize --help shows examples)")
	}
	for flag, size := range map[string]*int{"memory": &o.MemoryMiB, "disk": &o.DiskMiB} {
		if !c.IsSet(flag) {
			continue
		}
		if *size, err = parseSize("--"+flag, c.String(flag)); err == nil && *size == 0 {
			err = fmt.Errorf("--%s is %q, but must be a size such as 512M or 4G", flag, c.String(flag))
		}
		if err != nil {
			return o, err
		}
	}
	return o, nil
}

// sizesText says what was asked for, as it is now.
func sizesText(o machine.Sizes, s machine.Sizes) string {
	mebibytes := func(n int) string { return units.BytesSize(float64(n) * (1 << 20)) }
	switch {
	case o.DiskMiB == 0:
		return "memory: " + mebibytes(s.MemoryMiB)
	case o.MemoryMiB == 0:
		return "disk: " + mebibytes(s.DiskMiB)
	}
	return "memory: " + mebibytes(s.MemoryMiB) + ", disk: " + mebibytes(s.DiskMiB)
}
