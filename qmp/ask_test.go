package qmp_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/qmp"
)

// ask sends a command with the number and checks that the answer is the same number.
func ask(ctx context.Context, client *qmp.Client, number int) error {
	type body struct{ Number int }
	var got body
	if err := client.Execute(ctx, "echo", body{number}, &got); err != nil {
		return err
	}
	if got.Number != number {
		return fmt.Errorf("asked %d and got the answer to %d", number, got.Number)
	}
	return nil
}

// within is a context that ends soon, for what should not take long.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// big is a JSON string of n bytes.
func big(n int) string { return `"` + string(bytes.Repeat([]byte("x"), n-2)) + `"` }
