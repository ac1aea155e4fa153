package transfer_test

import (
	"context"
	"fmt"
	"os"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/transfer"
)

// Give a project to a guest that may also write to shared, and take back what it
// has made of it.
func Example() {
	build := func(ctx context.Context, client *agent.Client, shared string) error {
		o := transfer.Options{
			Shared: map[string]string{shared: "box"},
			Note:   func(text string) { fmt.Fprintln(os.Stderr, text) },
		}
		if err := transfer.To(ctx, client, "project/.", "src", o); err != nil {
			return err
		}
		cmd := client.Command(ctx, "make")
		cmd.Dir = "src"
		if err := cmd.Run(); err != nil {
			return err
		}
		return transfer.From(ctx, client, "src/result", "result", o)
	}
	_ = build
}
