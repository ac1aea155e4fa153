package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/machine"
)

// startRunning starts a sandbox that is measured while it runs, and returns its
// state. The caller removes it.
func (b *bench) startRunning(ctx context.Context, name string, more ...string) (machine.State, error) {
	args := append([]string{"run", "--detach", "--name", name, "--wait", "system"}, more...)
	start := func(ctx context.Context) (time.Duration, error) {
		took, err := b.run(ctx, nil, args...)
		if err != nil {
			b.remove(name)
		}
		return took, err
	}
	if _, err := measure(ctx, start); err != nil {
		return machine.State{}, err
	}
	s, err := b.host.Get(name)
	if err != nil {
		return machine.State{}, err
	}
	return s.State(), nil
}

// dial connects to the agent of a running sandbox.
func (b *bench) dial(ctx context.Context, name string) (*agent.Client, error) {
	s, err := b.host.Get(name)
	if err != nil {
		return nil, err
	}
	return s.Dial(ctx)
}

// execVsSSH compares a command in a running sandbox with the same over a new
// ssh connection: in a program that is connected already, and as commands.
func execVsSSH(ctx context.Context, b *bench) ([]figure, error) {
	const name = "exec"
	login, err := makeLogin(b.dir)
	if err != nil {
		return nil, err
	}
	state, err := b.startRunning(ctx, name, "--ssh-key", login+".pub")
	if err != nil {
		return nil, err
	}
	defer b.remove(name)
	client, err := b.dial(ctx, name)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var trips, commands, logins series
	for range b.calls {
		start := time.Now()
		if err := client.Command(ctx, "true").Run(); err != nil {
			return nil, err
		}
		trips = append(trips, time.Since(start))
		took, err := b.run(ctx, nil, "exec", name, "true")
		if err != nil {
			return nil, err
		}
		commands = append(commands, took)
		if took, err = b.ssh(ctx, login, state.SSHPort); err != nil {
			return nil, err
		}
		logins = append(logins, took)
	}
	return []figure{
		ratio("exec-vs-ssh", trips, logins).with(0.10),
		ratio("exec-vs-ssh-command", commands, logins).with(0.25),
	}, nil
}

// ssh is the time of one command over a connection of its own.
func (b *bench) ssh(ctx context.Context, login string, port int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ssh", "-F", "none", "-i", login, "-p", strconv.Itoa(port),
		"-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "StrictHostKeyChecking=accept-new",
		"-o", "UserKnownHostsFile="+filepath.Join(b.dir, "known_hosts"),
		b.img.Manifest.User.Name+"@"+loopback, "true")
	start := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("ssh to the sandbox: %w: %s", err, out)
	}
	return time.Since(start), nil
}

// bootParallel compares four sandboxes that are started at once with four that
// are started one after the other.
func bootParallel(ctx context.Context, b *bench) ([]figure, error) {
	var together, inTurn series
	for range b.repeat {
		took, err := measure(ctx, b.fourTogether)
		if err != nil {
			return nil, err
		}
		together = append(together, took)
		if took, err = measure(ctx, b.fourInTurn); err != nil {
			return nil, err
		}
		inTurn = append(inTurn, took)
	}
	return []figure{ratio("boot-parallel", together, inTurn)}, nil
}

func (b *bench) fourTogether(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	var group errgroup.Group
	for range 4 {
		group.Go(func() error {
			_, err := b.run(ctx, nil, "run", "--rm", "--", "true")
			return err
		})
	}
	err := group.Wait()
	return time.Since(start), err
}

func (b *bench) fourInTurn(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	for range 4 {
		if _, err := b.run(ctx, nil, "run", "--rm", "--", "true"); err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}
