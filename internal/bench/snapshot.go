package main

import (
	"context"
	"fmt"
	"time"

	"github.com/sourcery-zone/sandbox/machine"
)

// touched is the memory that the guest fills before it is saved, in MiB.
const touched = 300

// restore compares bringing a saved guest back with booting it, both until a
// command has run in it, and measures for how long saving stops it.
func restore(ctx context.Context, b *bench) ([]figure, error) {
	const name, tag = "restore", "full"
	// Files in memory are half of it at most, and the default is a share of the machine's. Those in /dev/shm are a tenth.
	if _, err := b.startRunning(ctx, name, "--memory", "1G"); err != nil {
		return nil, err
	}
	defer b.remove(name)
	fill := fmt.Sprintf("head -c %dM /dev/urandom >/tmp/touched", touched)
	if _, err := b.run(ctx, nil, "exec", name, "sh", "-c", fill); err != nil {
		return nil, err
	}
	pauses, err := b.save(ctx, name, tag)
	if err != nil {
		return nil, err
	}
	var restores, boots series
	for range b.repeat {
		took, err := measure(ctx, b.untilCommand(name, "snapshot", "restore", name, tag))
		if err != nil {
			return nil, err
		}
		restores = append(restores, took)
		if _, err := b.run(ctx, nil, "stop", "--time", "0", name); err != nil {
			return nil, err
		}
		if took, err = measure(ctx, b.untilCommand(name, "start", name)); err != nil {
			return nil, err
		}
		boots = append(boots, took)
	}
	pause := figure{Name: "save-pause", Unit: "s", Value: pauses.median().Seconds(), detail: pauses.String()}
	return []figure{ratio("restore", restores, boots), pause.with(1)}, nil
}

// save leaves a snapshot with that tag, and returns the pauses of several.
func (b *bench) save(ctx context.Context, name, tag string) (series, error) {
	s, err := b.host.Get(name)
	if err != nil {
		return nil, err
	}
	var pauses series
	for i := range b.repeat {
		if i > 0 {
			if err := s.RemoveSnapshot(tag); err != nil {
				return nil, err
			}
		}
		snap, err := s.SaveSnapshot(ctx, tag, machine.SaveOptions{})
		if err != nil {
			return nil, err
		}
		pauses = append(pauses, snap.Pause)
	}
	return pauses, nil
}

// untilCommand is the time of a command of ours and of the first one in the
// guest after it.
func (b *bench) untilCommand(name string, args ...string) func(context.Context) (time.Duration, error) {
	return func(ctx context.Context) (time.Duration, error) {
		ready, err := b.run(ctx, nil, args...)
		if err != nil {
			return 0, err
		}
		first, err := b.run(ctx, nil, "exec", name, "true")
		return ready + first, err
	}
}
