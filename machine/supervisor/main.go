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

// Option is something that a supervisor cannot know of the program that it is.
type Option func(*supervisor)

// AllowCommand is the program's command by which a user opens something to a guest, without the name of its sandbox and the
// rule, which are appended. Who is refused is told of it; otherwise of no command.
func AllowCommand(command string) Option {
	return func(v *supervisor) { v.allowCommand = command }
}

// AskCommand is the program's command, without the name of a sandbox, by which a user answers what its guest asks for. A
// notification on the desktop names it.
func AskCommand(command string) Option {
	return func(v *supervisor) { v.askCommand = command }
}

// Main stands first in the main function of every program that starts sandboxes: the
// program is started again for each sandbox, for what confines QEMU and virtiofsd, and for a guest's network.
// In such a process Main does its work and never returns; in others it returns at once.
func Main(options ...Option) {
	confine.Main()
	server.Main()
	if len(os.Args) < 2 || os.Args[1] != machine.SuperviseCommand {
		return
	}
	// Not a context that ends by a signal: the supervisor answers signals in order.
	if err := run(context.Background(), options); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
		os.Exit(1)
	}
	os.Exit(0)
}
