package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/internal/progress"
)

// tailLines is how much of a failed command's output an error quotes: apt's reason stands in the last few lines.
const tailLines = 15

// prepare creates what the commands of s expect below the working directory.
func (s script) prepare() error {
	for _, dir := range s.Dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("prepare the set-up: %w", err)
		}
	}
	for _, file := range s.Files {
		// apt reads it as its own unprivileged user; there is no secret in it.
		if err := os.WriteFile(file.Path, []byte(file.Content), 0o644); err != nil {
			return fmt.Errorf("prepare the set-up: %w", err)
		}
	}
	return nil
}

// run carries out the commands of s one after another and stops at the first that fails. elevate stands before those
// that need root.
func (s script) run(ctx context.Context, elevate []string, report *progress.Reporter) error {
	var shown *progress.Step
	for _, step := range s.Steps {
		if step.Title != "" {
			if shown != nil {
				shown.Done()
			}
			shown = report.Start(step.Title, 0)
		}
		if err := step.run(ctx, elevate); err != nil {
			if shown != nil {
				shown.Fail()
			}
			return err
		}
	}
	if shown != nil {
		shown.Done()
	}
	return nil
}

func (step Step) run(ctx context.Context, elevate []string) error {
	argv := step.Argv
	if step.Root {
		argv = slices.Concat(elevate, argv)
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = step.Dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	// A package manager that is killed leaves work half done: it is asked to stop, and waited for.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("the set-up was interrupted during %q: run it again to complete it", quote(step.Argv))
	}
	return fmt.Errorf("the command %s failed: %w; its last lines were:\n%s", quote(argv), err, tail(string(out), tailLines))
}

// tail returns the last n lines of text, indented.
func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	lines = lines[max(0, len(lines)-n):]
	return "    " + strings.Join(lines, "\n    ")
}

// elevation returns what to put before a command that needs root. It asks for sudo's password here, so that no prompt
// comes up in the middle of the progress display.
func elevation(ctx context.Context) ([]string, error) {
	if os.Geteuid() == 0 {
		return nil, nil
	}
	sudo, err := exec.LookPath("sudo")
	if err != nil {
		return nil, errors.New("installing packages needs root, and there is no sudo here: run this as root, for example by su -c")
	}
	cmd := exec.CommandContext(ctx, sudo, "-v")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("installing packages needs root, and sudo refused it (%w): run this as root", err)
	}
	argv := []string{sudo}
	var keep []string
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy"} { // apt would not find its way without them
		if os.Getenv(name) != "" {
			keep = append(keep, name)
		}
	}
	if len(keep) > 0 {
		argv = append(argv, "--preserve-env="+strings.Join(keep, ","))
	}
	return append(argv, "--"), nil
}
