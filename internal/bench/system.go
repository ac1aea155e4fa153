package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sourcery-zone/sandbox/qemu"
)

// systemReady compares the time until systemd is done in a sandbox with that of
// the same packages as they are, on the same virtual machine. The sandbox's
// includes all that we do around it.
func systemReady(ctx context.Context, b *bench) ([]figure, error) {
	// Without keys its ssh.service would fail and try again, which would flatter us.
	keys, err := hostKeyFiles(b.dir)
	if err != nil {
		return nil, err
	}
	initrd, err := b.writePlainInitrd(ctx, "system", slices.Concat(keys, networkFiles(), systemFiles()))
	if err != nil {
		return nil, err
	}
	plain := func(ctx context.Context) (time.Duration, error) { return b.plainSystem(ctx, initrd) }
	var ours, theirs series
	for range b.repeat {
		took, err := measure(ctx, func(ctx context.Context) (time.Duration, error) { return b.systemOf(ctx) })
		if err != nil {
			return nil, err
		}
		ours = append(ours, took)
		if took, err = measure(ctx, plain); err != nil {
			return nil, err
		}
		theirs = append(theirs, took)
	}
	return []figure{ratio("system-ready", ours, theirs).with(0.5)}, nil
}

// systemOf is the time from the start of `sandbox run`, with these options, to
// its end.
func (b *bench) systemOf(ctx context.Context, options ...string) (time.Duration, error) {
	const name = "system"
	defer b.remove(name)
	return b.run(ctx, nil, append([]string{"run", "--detach", "--name", name, "--wait", "system"}, options...)...)
}

// plainSystem is the time from QEMU's start to the end of systemd's start, in a
// guest without our agent and our settings.
func (b *bench) plainSystem(ctx context.Context, initrd string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	key, err := newKey()
	if err != nil {
		return 0, err
	}
	vm, err := b.rawConfig("", key)
	if err != nil {
		return 0, err
	}
	vm.Initrd, vm.AgentFD, vm.Shares = initrd, 0, nil
	vm.Cmdline = []string{"console=hvc0", "loglevel=4"}
	return b.awaitSystem(ctx, vm)
}

func (b *bench) awaitSystem(ctx context.Context, vm qemu.Config) (time.Duration, error) {
	guest, err := startGuest(ctx, b.plan.QEMU, vm, extras{})
	if err != nil {
		return 0, err
	}
	defer guest.stop()
	select {
	case <-guest.console.await(systemWord):
		return time.Since(guest.started), nil
	case <-guest.vm.Done():
		return 0, guest.explain(fmt.Errorf("QEMU ended: %w", guest.vm.Err()))
	case <-ctx.Done():
		return 0, guest.explain(errors.New("systemd did not come to its end"))
	}
}
