package machine_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/supervisor"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// A sandbox of the default image with a shared directory, in which one command
// runs. The program calls itself as the sandbox's supervisor.
func Example() {
	ctx := context.Background()
	if len(os.Args) > 1 && os.Args[1] == machine.SuperviseCommand {
		if err := supervisor.Run(ctx); err != nil {
			log.Fatal(err)
		}
		return
	}

	dirs, err := layout.DefaultDirs(os.Getenv, os.Getuid())
	if err != nil {
		log.Fatal(err)
	}
	host, err := machine.OpenHost(dirs)
	if err != nil {
		log.Fatal(err)
	}

	img, err := host.Images.Get("") // the default one
	if err != nil {
		log.Fatal(err)
	}
	config := machine.Config{
		Name: host.NewName(), Created: time.Now(), Image: img.Exact(), MemoryMiB: 1024, CPUs: 2,
		Shares:  []virtiofs.Share{{Source: "/srv/project", Target: "/home/agent/project"}},
		Network: network.ModeUser, Transport: agent.TransportAuto, ReadyTimeout: machine.DefaultReadyTimeout,
	}
	if _, err := host.Plan(ctx, config, img); err != nil { // everything that can be known before
		log.Fatal(err)
	}
	sandbox, err := host.Create(config)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := sandbox.Start(ctx, machine.StartOptions{Until: machine.StageAgent}); err != nil {
		log.Fatal(err)
	}
	client, err := sandbox.Dial(ctx)
	if err != nil {
		log.Fatal(err)
	}
	out, err := client.Command(ctx, "ls", "/home/agent/project").Output()
	client.Close()
	if err != nil {
		log.Print(err)
	}
	fmt.Printf("%s", out)
	if err := sandbox.Remove(ctx, true); err != nil {
		log.Fatal(err)
	}
}
