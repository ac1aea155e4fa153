package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"github.com/sourcery-zone/sandbox/internal/nested"
	"github.com/sourcery-zone/sandbox/qemu"
)

// nestedNames are the measurements that KVM makes a difference to, and that two
// emulated processors and 5 GiB are enough for.
var nestedNames = []string{"ready-overhead", "ready-vs-microvm-nix", "exec-vs-ssh", "system-ready", "restore", "warm-start", "fork"}

// nestedLine is above the table.
const nestedLine = "KVM within an emulated guest: each exit from a guest is emulated, and the figures are bound by exits."

// suitNested changes what was left at its default for one machine to what suits
// a guest in a guest.
func (o *settings) suitNested(f *flag.FlagSet) {
	set := map[string]bool{}
	f.Visit(func(f *flag.Flag) { set[f.Name] = true })
	if !set["only"] {
		o.only = nestedNames
	}
	if !set["repeat"] {
		o.repeat = 2
	}
	if !set["calls"] {
		o.calls = 5
	}
	if !set["timeout"] {
		o.timeout = 2 * time.Hour // a slow machine is no fault: what takes that long hangs
	}
}

// runNested runs this program in a guest that has KVM, and brings its figures
// here.
func runNested(ctx context.Context, b *bench) (err error) {
	if b.plan.VM.Accel == qemu.AccelKVM {
		return errors.New("this machine has KVM itself: leave -nested out, and guests are measured under that")
	}
	tools := filepath.Join(b.dir, "tools")
	if err := nested.Collect(ctx, tools, filepath.Dir(b.sandbox)); err != nil {
		return err
	}
	for _, program := range []string{"bench", plainInit} {
		if err := build(ctx, program, filepath.Join(tools, "bin", filepath.Base(program))); err != nil {
			return err
		}
	}
	guest, err := nested.Start(ctx, nested.Config{Program: b.sandbox, Env: b.env, Image: b.img, Tools: tools})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, guest.Remove()) }()
	fmt.Println(nestedLine)
	const result = "/root/bench.json"
	cmd := guest.Command(ctx, nested.EnableKVM+"exec bench "+strings.Join(b.inner(result), " "))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// The guest's own program ends what it has started.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	ran := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](ran); ran != nil && !ok {
		return ran
	}
	// One that could not measure all has written the others.
	figures, err := guest.Command(ctx, "cat "+result).Output()
	if err == nil {
		err = renameio.WriteFile(b.json, figures, 0o644)
	}
	if ran != nil {
		ran = fmt.Errorf("in the guest: %w", ran)
	}
	return errors.Join(ran, err)
}

// inner are the flags of this program in the guest.
func (b *bench) inner(json string) []string {
	return []string{
		"-sandbox", nested.Tools + "/bin/sandbox", "-image", b.img.Ref(), "-json", json,
		"-only", strings.Join(b.only, ","), "-repeat", strconv.Itoa(b.repeat), "-calls", strconv.Itoa(b.calls), "-files", strconv.Itoa(b.files),
		"-idle", b.idle.String(), "-timeout", b.timeout.String(),
	}
}

// build builds a program of internal for any guest of this architecture.
func build(ctx context.Context, name, path string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/sourcery-zone/sandbox/internal/"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s for a guest: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}
