package supervisor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sourcery-zone/sandbox/internal/confine"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/network/gateway/server"
)

// Main stands first in the main function of every program that starts sandboxes: the
// program is started again for each sandbox, for what confines QEMU and virtiofsd, and for a guest's network.
// In such a process Main does its work and never returns; in others it returns at once.
func Main() {
	confine.Main()
	server.Main()
	if len(os.Args) < 2 || os.Args[1] != machine.SuperviseCommand {
		return
	}
	// Not a context that ends by a signal: the supervisor answers signals in order.
	if err := run(context.Background()); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
		os.Exit(1)
	}
	os.Exit(0)
}
