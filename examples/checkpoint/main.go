// Command checkpoint lets something go wrong in a machine, and takes it back:
//
//	go run ./examples/checkpoint
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/supervisor"
)

func main() {
	supervisor.Main() // is this program, started again for the sandbox
	if err := demonstrate(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func demonstrate(ctx context.Context) (err error) {
	host, err := machine.Open()
	if err != nil {
		return err
	}
	s, err := host.Launch(ctx, machine.Config{
		Hardware: machine.Hardware{Image: image.ParseRef(os.Getenv("SANDBOX_IMAGE")), MemoryMiB: 512, DiskMiB: 512},
		Life:     machine.Life{ReadyTimeout: time.Hour}, // also where it is emulated on a busy machine
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Remove(ctx, true)) }()
	if err := s.Stream(ctx, strings.NewReader("years of work\n"), nil, nil, "sh", "-c", "cat >/tmp/thesis"); err != nil {
		return err
	}
	if _, err := s.SaveSnapshot(ctx, "good", machine.SaveOptions{}); err != nil {
		return err
	}
	if _, err := s.Output(ctx, "sh", "-c", "rm /tmp/thesis"); err != nil {
		return err
	}
	_, err = s.Output(ctx, "cat", "/tmp/thesis")
	fmt.Printf("after the accident: %v\n", err)
	if _, err := s.Restore(ctx, "good", false, machine.StartOptions{Until: machine.StageAgent}); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "checkpoint")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := s.CopyOut(ctx, "/tmp/thesis", dir); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(dir, "thesis"))
	fmt.Printf("after the restore: %s", text)
	return err
}
