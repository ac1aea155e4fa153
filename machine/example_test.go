package machine_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/supervisor"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// The tests of a directory run in a machine that sees nothing else and has no network.
func ExampleHost_Run() {
	supervisor.Main() // is this program, started again for the sandbox

	host, err := machine.Open()
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	out, err := host.Run(ctx, machine.Config{
		Hardware: machine.Hardware{MemoryMiB: 4096, Network: network.ModeNone},
		Access:   machine.Access{Shares: []virtiofs.Share{{Source: "/srv/project", Target: "project"}}},
	}, "sh", "-c", "cd project && npm test")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s", out)
}

// What one sandbox has prepared, others go on from.
func ExampleSandbox_Fork() {
	supervisor.Main()

	ctx := context.Background()
	host, err := machine.Open()
	if err != nil {
		log.Fatal(err)
	}
	first, err := host.Launch(ctx, machine.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer first.Remove(ctx, true)
	if _, err := first.Output(ctx, "npm", "install", "--global", "typescript"); err != nil {
		log.Fatal(err)
	}
	second, err := first.Fork(ctx, "")
	if err != nil {
		log.Fatal(err)
	}
	defer second.Remove(ctx, true)
	version, err := second.Output(ctx, "tsc", "--version")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s", version)
}
