package qemu

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"al.essio.dev/pkg/shellescape"

	"github.com/sourcery-zone/sandbox/internal/process"
)

// Start starts QEMU. It is killed when this process ends, and asked to end (SIGTERM) when ctx does. The
// files become its descriptors 3, 4, …, to which Config's …FD fields refer; they stay the caller's to
// close, which is best done at once after Start: a socket's other end then reports end of file when QEMU
// ends. All output of QEMU goes to log, which may be nil.
//
// A nil error says that the program runs and not that QEMU is content with its arguments; the process's
// Err says so afterwards, in QEMU's words.
func Start(ctx context.Context, caps Capabilities, c Config, files []*os.File, log io.Writer) (*process.Process, error) {
	return StartAs(ctx, nil, caps, c, files, log)
}

// StartAs is Start as the user u, unless that is nil. Privileges are dropped before QEMU's first instruction,
// because its own way (-run-with user=) is forbidden by its own seccomp filter. The configuration and the
// files are those of Config.OpenFor.
func StartAs(ctx context.Context, u *User, caps Capabilities, c Config, files []*os.File, log io.Writer) (*process.Process, error) {
	args, err := c.Args(caps)
	if err != nil {
		return nil, fmt.Errorf("composing QEMU's command line: %w", err)
	}
	cmd := exec.CommandContext(ctx, caps.Binary, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: u.credential()}
	return process.Start(cmd, process.Options{Log: log})
}

// FirstFD is the number that the first of Start's files has in QEMU, as exec.Cmd gives it to the first of its
// ExtraFiles.
const FirstFD = 3

// ShellQuote returns argv as one line that a POSIX shell reads back as the same arguments.
func ShellQuote(argv []string) string { return shellescape.QuoteCommand(argv) }
