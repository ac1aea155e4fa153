package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/network"
)

// bench is what all measurements share.
type bench struct {
	settings
	dir  string // temporary: sandboxes, sockets, keys, logs
	host *machine.Host
	img  *image.Image
	plan *machine.Plan // how a sandbox of this image runs here, without shares
	env  []string      // of the program under test
}

// prepare makes a place of its own for the sandboxes that are measured. Images
// and the answers of earlier probes are the user's.
func prepare(ctx context.Context, o settings) (*bench, error) {
	program, err := filepath.Abs(o.sandbox)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(program); err != nil {
		return nil, fmt.Errorf("the program to measure is not there: build it with make build, or name it with -sandbox: %w", err)
	}
	o.sandbox = program
	// Short, because the paths of sockets are.
	dir, err := os.MkdirTemp("/tmp", "sb-bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{settings: o, dir: dir}
	if err := b.open(ctx); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return b, nil
}

func (b *bench) open(ctx context.Context) error {
	own := map[string]string{
		"XDG_STATE_HOME": filepath.Join(b.dir, "s"), "XDG_RUNTIME_DIR": filepath.Join(b.dir, "r"),
	}
	getenv := func(name string) string {
		if value, ok := own[name]; ok {
			return value
		}
		return os.Getenv(name)
	}
	b.env = os.Environ()
	for name, value := range own {
		b.env = append(b.env, name+"="+value)
	}
	dirs, err := layout.DefaultDirs(getenv, os.Getuid())
	if err != nil {
		return err
	}
	if b.host, err = machine.OpenHost(dirs); err != nil {
		return err
	}
	if b.img, err = b.host.Images.Get(b.image); err != nil {
		return err
	}
	b.env = append(b.env, "SANDBOX_IMAGE="+b.img.Exact().String(), "SANDBOX_TIMEOUT="+b.timeout.String())
	b.plan, err = b.host.Plan(ctx, b.config(), b.img)
	return err
}

// config is that of `sandbox run` without any option, except that the agent is
// reached over virtio-serial: which transport a host has must not change what
// is compared.
func (b *bench) config() machine.Config {
	d := b.img.Manifest.Defaults
	return machine.Config{
		Name: "raw",
		Hardware: machine.Hardware{
			Image: b.img.Exact(), MemoryMiB: d.MemoryMiB, CPUs: d.CPUs, Network: network.ModePublic, Transport: agent.TransportSerial,
		},
		Life: machine.Life{ReadyTimeout: b.timeout},
	}
}

// close removes what is left of the sandboxes.
func (b *bench) close() {
	if all, err := b.host.List(); err == nil {
		for _, s := range all {
			b.remove(s.Name)
		}
	}
	os.RemoveAll(b.dir)
}

// describe is the line above the table.
func (b *bench) describe() string {
	vm := b.plan.VM
	line := fmt.Sprintf("%s, QEMU %s, %s on %s, %d CPUs and %d MiB for each guest",
		b.img.Ref(), b.plan.QEMU.Version, vm.Accel, vm.Machine, vm.CPUs, vm.MemoryMiB)
	if data, err := os.ReadFile("/proc/loadavg"); err == nil {
		now, _, _ := strings.Cut(string(data), " ")
		if load, err := strconv.ParseFloat(now, 64); err == nil && load > 1 {
			line += fmt.Sprintf("\nThis machine is busy (load %s): its figures are coarse.", now)
		}
	}
	return line
}

// run runs the program under test and returns how long it took. What it writes
// to stdout goes there; it may be nil.
func (b *bench) run(ctx context.Context, stdout io.Writer, args ...string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, b.sandbox, args...)
	// The program ends its sandbox on this signal; killed, it could not.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Env, cmd.Stdout, cmd.Stderr = b.env, stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	took := time.Since(start)
	if err != nil {
		err = fmt.Errorf("sandbox %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return took, err
}

// attempts is how often a guest is started until it is measured: under TCG QEMU
// itself fails once in a while, which must not cost the minutes before.
const attempts = 2

// measure takes one duration, with a second attempt if the first fails.
func measure(ctx context.Context, take func(context.Context) (time.Duration, error)) (took time.Duration, err error) {
	for range attempts {
		if took, err = take(ctx); err == nil || ctx.Err() != nil {
			return took, err
		}
		fmt.Fprintf(os.Stderr, "bench: trying again after: %v\n", err)
	}
	return took, err
}

// whole is the duration of one command of the program under test.
func (b *bench) whole(args ...string) func(context.Context) (time.Duration, error) {
	return func(ctx context.Context) (time.Duration, error) { return b.run(ctx, nil, args...) }
}

// remove ends and removes a sandbox that was measured.
func (b *bench) remove(name string) {
	if _, err := b.run(context.Background(), nil, "rm", "--force", name); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}
