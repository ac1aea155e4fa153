package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "check whether this machine can run sandboxes, and say what to do if not",
		Description: `The exit code is 0 when sandboxes can run, if slowly or without
names of the network, and 1 when they cannot.

EXAMPLES
   sandbox doctor
   sandbox doctor || make setup             in a clone of this project`,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			dirs, err := layout.DefaultDirs(os.Getenv, os.Getuid())
			if err != nil {
				return err
			}
			return doctor(c.Context, c, dirs)
		},
	}
}

func doctor(ctx context.Context, c *cli.Context, dirs layout.Dirs) error {
	failed := false
	for _, check := range machine.Examine(ctx, dirs) {
		mark := "ok  "
		switch check.Verdict {
		case machine.Slow:
			mark = "slow"
		case machine.Limited:
			mark = "note"
		case machine.Bad:
			mark, failed = "BAD ", true
		}
		fmt.Fprintf(c.App.Writer, "%s  %-10s %s\n", mark, check.Name, strings.ReplaceAll(check.Finding+inWords(check.Remedies), "\n", "\n                 "))
	}
	if failed {
		return &exitCode{exitFailure, errors.New("this machine cannot run sandboxes yet: see the lines marked BAD")}
	}
	return nil
}
