// Command run runs a command on a directory in a machine of its own, which sees
// nothing else of this one and has no network:
//
//	go run ./examples/run DIRECTORY COMMAND [ARG...]
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/supervisor"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

func main() {
	supervisor.Main() // is this program, started again for the sandbox
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: run DIRECTORY COMMAND [ARG...]")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1], os.Args[2:])
	stop()
	if exit, ok := errors.AsType[*agent.ExitError](err); ok {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exit.Code)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(125)
	}
}

func run(ctx context.Context, dir string, command []string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	host, err := machine.Open()
	if err != nil {
		return err
	}
	config := machine.Config{
		Hardware: machine.Hardware{Image: image.ParseRef(os.Getenv("SANDBOX_IMAGE")), Network: network.ModeNone},
		Access:   machine.Access{Shares: []virtiofs.Share{{Source: dir, Target: "work"}}},
		Life:     machine.Life{ReadyTimeout: time.Hour}, // also where it is emulated on a busy machine
	}
	// A command has the home as its working directory.
	out, err := host.Run(ctx, config, append([]string{"env", "--chdir=work"}, command...)...)
	os.Stdout.Write(out)
	return err
}
