//go:build linux

// Command sandbox-agent is the program inside a sandbox's guest: its first
// process, then the service that answers the host. It is put into the initrd
// as /init and is of no use outside of a guest.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/sourcery-zone/sandbox/agent/guest"
	"github.com/sourcery-zone/sandbox/agent/server"
	"golang.org/x/sys/unix"
)

// serviceFD is where process 1 waits for the service's word.
const serviceFD = 3

func main() {
	if os.Getpid() == 1 {
		guest.Init()
	}
	if len(os.Args) < 2 {
		fail(fmt.Errorf("this program runs inside a guest; start one with sandbox run"))
	}
	switch os.Args[1] {
	case "service":
		// systemd says SIGTERM to whatever is left when the guest shuts down.
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
		defer stop()
		guest.Service(ctx, os.NewFile(serviceFD, "process 1"))
	default:
		err := server.RunSelf(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
		if errors.Is(err, server.ErrNoMode) {
			err = fmt.Errorf("there is no mode %q", os.Args[1:])
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err) // the host says who says it
			os.Exit(1)
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "sandbox-agent:", err)
	os.Exit(1)
}
