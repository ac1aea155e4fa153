// Command forks prepares a machine once, and tries several things at once, each in a
// copy of it:
//
//	go run ./examples/forks
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/supervisor"
)

func main() {
	supervisor.Main() // is this program, started again for each sandbox
	if err := try(context.Background(), "sort", "sort -r", "wc -l"); err != nil {
		log.Fatal(err)
	}
}

func try(ctx context.Context, commands ...string) (err error) {
	host, err := machine.Open()
	if err != nil {
		return err
	}
	base, err := host.Launch(ctx, machine.Config{
		Hardware: machine.Hardware{Image: image.ParseRef(os.Getenv("SANDBOX_IMAGE")), MemoryMiB: 512, CPUs: 1},
		Life:     machine.Life{ReadyTimeout: time.Hour}, // also where it is emulated on a busy machine
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, base.Remove(ctx, true)) }()
	// In the memory of the machine, which the copies have, too.
	if _, err := base.Output(ctx, "sh", "-c", "printf 'b\nc\na\n' >/dev/shm/letters"); err != nil {
		return err
	}
	results := make([]string, len(commands))
	var group errgroup.Group
	for i, command := range commands {
		fork, err := base.Fork(ctx, "")
		if err != nil {
			return errors.Join(err, group.Wait())
		}
		group.Go(func() error {
			out, err := fork.Output(ctx, "sh", "-c", command+" </dev/shm/letters")
			results[i] = string(out)
			return errors.Join(err, fork.Remove(ctx, true))
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, command := range commands {
		fmt.Printf("%s: %q\n", command, results[i])
	}
	return nil
}
