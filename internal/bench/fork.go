package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// warmStart compares beginning with the saved state of the image with booting
// it, to each of the two stages.
func warmStart(ctx context.Context, b *bench) ([]figure, error) {
	const name = "warm"
	start := func(more ...string) func(context.Context) (time.Duration, error) {
		return func(ctx context.Context) (time.Duration, error) {
			defer b.remove(name)
			return b.run(ctx, nil, append([]string{"run", "--detach", "--name", name}, more...)...)
		}
	}
	if _, err := b.run(ctx, nil, "image", "warm", "--shares", "0", b.img.Ref()); err != nil {
		return nil, err
	}
	var figures []figure
	for _, of := range []struct{ figure, stage string }{{"warm-start", "agent"}, {"warm-start-system", "system"}} {
		var warm, cold series
		for range b.repeat {
			took, err := measure(ctx, start("--wait", of.stage, "--warm"))
			if err != nil {
				return nil, err
			}
			warm = append(warm, took)
			if took, err = measure(ctx, start("--wait", of.stage)); err != nil {
				return nil, err
			}
			cold = append(cold, took)
		}
		figures = append(figures, ratio(of.figure, warm, cold).with(0.10))
	}
	return figures, nil
}

// together is how many forks are made at once.
const together = 10

// fork compares a fork of a running sandbox with a boot, both until a command
// has run in it.
func fork(ctx context.Context, b *bench) ([]figure, error) {
	const parent, name = "parent", "parent-fork"
	if _, err := b.startRunning(ctx, parent, "--memory", "1G"); err != nil {
		return nil, err
	}
	defer b.remove(parent)
	var forks, boots series
	for range b.repeat {
		took, err := measure(ctx, b.untilCommand(name, "fork", parent))
		b.remove(name)
		if err != nil {
			return nil, err
		}
		forks = append(forks, took)
		if took, err = b.bootAndCommand(ctx, name); err != nil {
			return nil, err
		}
		boots = append(boots, took)
	}
	return []figure{ratio("fork", forks, boots).with(0.10)}, nil
}

// bootAndCommand is the time of a boot of what fork forks, and of a command.
func (b *bench) bootAndCommand(ctx context.Context, name string) (time.Duration, error) {
	defer b.remove(name)
	return measure(ctx, b.untilCommand(name, "run", "--detach", "--name", name, "--memory", "1G"))
}

// forkMemory measures what memory many forks take.
func forkMemory(ctx context.Context, b *bench) ([]figure, error) {
	boot, err := b.bootAndCommand(ctx, "boot")
	if err != nil {
		return nil, err
	}
	var figures []figure
	for _, of := range []struct {
		figure string
		flags  []string
	}{{"fork-memory", []string{"--no-home"}}, {"fork-memory-home", nil}} {
		got, err := b.forkMany(ctx, of.figure, of.flags, boot)
		if err != nil {
			return figures, err
		}
		figures = append(figures, got...)
	}
	figures[0] = figures[0].with(0.25)
	return figures, nil
}

// forkMany makes forks of an idle sandbox at once, and compares what memory
// each takes with what the sandbox took alone. It also tells how long they took,
// as a multiple of one boot.
func (b *bench) forkMany(ctx context.Context, figureName string, flags []string, boot time.Duration) ([]figure, error) {
	const parent = "origin"
	state, err := b.startRunning(ctx, parent, append([]string{"--memory", "1G"}, flags...)...)
	if err != nil {
		return nil, err
	}
	defer b.remove(parent)
	_, first, err := memory(state.QEMU)
	if err != nil {
		return nil, err
	}
	took, err := b.run(ctx, nil, "fork", "--count", strconv.Itoa(together), "--name", "many", parent)
	if err != nil {
		return nil, err
	}
	var sum int64
	for i := range together {
		name := fmt.Sprintf("many-%d", i+1)
		defer b.remove(name)
		s, err := b.host.Get(name)
		if err != nil {
			return nil, err
		}
		_, pss, err := memory(s.State().QEMU)
		if err != nil {
			return nil, err
		}
		sum += pss
	}
	each := sum / together
	return []figure{
		{
			Name: figureName, Unit: "ratio", Value: float64(each) / float64(first),
			detail: fmt.Sprintf("PSS of each of %d forks %.0f MiB / of the first %.0f MiB", together, mebibytes(each), mebibytes(first)),
		},
		{
			Name: strings.Replace(figureName, "memory", "ten", 1), Unit: "boots", Value: took.Seconds() / boot.Seconds(),
			detail: fmt.Sprintf("%d forks at once, all ready in %s / one boot and command %s", together, short(took), short(boot)),
		},
	}, nil
}
