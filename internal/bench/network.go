package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	traffic = "traffic" // the program of this folder that runs in guests
	// transferred is how much is moved at once, in bytes, and many over how many connections it then is.
	transferred = 64 << 20
	many        = 16
	// turns is how often each of two networks is measured with each pair of guests, one after the other: a machine is not
	// equally fast all the time.
	turns = 4
	// held is how many connections are open while the memory of the network's process is measured.
	held = 1000
)

// networks compares our network with QEMU's own: the same guest, the same server on this
// machine, in turn.
func networks(ctx context.Context, b *bench) ([]figure, error) {
	program := filepath.Join(b.dir, traffic)
	if err := build(ctx, "bench/"+traffic, program); err != nil {
		return nil, err
	}
	server, err := serveTraffic()
	if err != nil {
		return nil, err
	}
	defer server.Close()
	port := strconv.Itoa(server.Addr().(*net.TCPAddr).Port)
	ours := networked{bench: b, name: "public", address: net.JoinHostPort("10.0.2.2", port)}
	theirs := networked{bench: b, name: "user", address: net.JoinHostPort("10.0.2.2", port)}
	for n, more := range map[*networked][]string{&ours: {"--net", "public", "--allow-host-port", port}, &theirs: {"--net", "user"}} {
		if err := n.start(ctx, program, more); err != nil {
			return nil, err
		}
		defer b.remove(n.name)
	}
	others := []networked{theirs}
	passt, err := b.startPasst(ctx, program)
	if err != nil {
		return nil, fmt.Errorf("with passt: %w", err)
	}
	if passt != nil {
		defer passt.stop()
		others = append(others, networked{bench: b, name: "passt", address: ours.address, pids: passt.pids(), output: passt.output})
	}
	idle, err := ours.memory()
	if err != nil {
		return nil, err
	}
	var figures []figure
	for _, m := range []struct {
		figure, mode string
		connections  int
		amount       int64
		goal         float64
	}{
		{"net-down", "down", 1, transferred, 0.5},
		{"net-up", "up", 1, transferred, 0.5},
		{"net-down-16", "down", many, transferred, 1 / 1.2},
		{"net-up-16", "up", many, transferred, 1 / 1.2},
		{"net-connect", "connect", 1, int64(2 * b.calls), 1.1},
		{"net-request", "request", 1, int64(10 * b.calls), 0},
	} {
		all := append([]networked{ours}, others...)
		took, cost := make([]series, len(all)), make([]series, len(all))
		for turn := range turns * b.repeat {
			for next := range all {
				i := (turn + next) % len(all)
				if i > 1 && turn%turns > 0 {
					continue // it is for comparison only, and takes minutes where it is slow
				}
				n := all[i]
				before, err := n.processors()
				if err != nil {
					return nil, err
				}
				times, err := n.measure(ctx, m.mode, m.connections, m.amount)
				if err != nil {
					return nil, err
				}
				after, err := n.processors()
				if err != nil {
					return nil, err
				}
				took[i], cost[i] = append(took[i], times...), append(cost[i], after-before)
			}
		}
		for i := range others {
			name, theirs := m.figure, i+1
			if i > 0 {
				name += "-vs-" + others[i].name
			}
			f := ratio(name, took[0], took[theirs])
			if m.amount == transferred {
				f.detail += fmt.Sprintf("; %.1f / %.1f MiB/s", mebibytes(m.amount)/took[0].median().Seconds(), mebibytes(m.amount)/took[theirs].median().Seconds())
			}
			if m.goal != 0 && i == 0 {
				f = f.with(m.goal)
			}
			figures = append(figures, f)
			if m.amount == transferred {
				c := ratio(name+"-cpu", cost[0], cost[theirs])
				c.detail += fmt.Sprintf("; QEMU and network, for %d MiB", transferred>>20)
				figures = append(figures, c)
			}
		}
	}
	full, err := ours.memoryHolding(ctx, "hold", held)
	if err != nil {
		return nil, err
	}
	return append(figures,
		figure{Name: "net-rss", Unit: "MiB", Value: mebibytes(idle), detail: "resident memory of the network's process, nothing sent yet"}.with(40),
		figure{Name: "net-rss-1000", Unit: "MiB", Value: mebibytes(full), detail: fmt.Sprintf("the same, with %d open connections", held)}.with(80),
	), nil
}

// networkStart compares starts with each of the two networks.
func networkStart(ctx context.Context, b *bench) ([]figure, error) {
	var ours, theirs series
	for range b.repeat {
		for mode, into := range map[string]*series{"public": &ours, "user": &theirs} {
			took, err := measure(ctx, b.whole("run", "--rm", "--net", mode, "--", "true"))
			if err != nil {
				return nil, err
			}
			*into = append(*into, took)
		}
	}
	return []figure{ratio("net-start", ours, theirs).with(1.02)}, nil
}

// networked is a sandbox with one of the networks.
type networked struct {
	*bench
	name    string
	address string // of the server on this machine, for the guest
	pids    []int  // of whatever carries the guest's bytes; the last is the network's own, if it has one
	own     bool
	// output runs the guest's half of a measurement, and returns what it prints.
	output func(ctx context.Context, args ...string) ([]byte, error)
}

func (n *networked) start(ctx context.Context, program string, more []string) error {
	state, err := n.startRunning(ctx, n.name, more...)
	if err != nil {
		return err
	}
	n.pids = []int{state.QEMU}
	if n.own = state.Gateway != 0; n.own {
		n.pids = append(n.pids, state.Gateway)
	}
	n.output = func(ctx context.Context, args ...string) ([]byte, error) { return n.command(ctx, args...).Output() }
	_, err = n.run(ctx, nil, "cp", program, n.name+":/tmp/"+traffic)
	return err
}

// processors is what the guest and its network have used of the processors.
func (n *networked) processors() (total time.Duration, err error) {
	for _, pid := range n.pids {
		spent, err := processorTime(pid)
		if err != nil {
			return 0, err
		}
		total += spent
	}
	return total, nil
}

// memory is what is resident of the network's own process.
func (n *networked) memory() (int64, error) {
	if !n.own {
		return 0, errors.New("the network has no process")
	}
	rss, _, err := memory(n.pids[len(n.pids)-1])
	return rss, err
}

// arguments are those of the guest's half of a measurement.
func (n *networked) arguments(mode string, connections int, amount int64) []string {
	return []string{n.address, mode, strconv.Itoa(connections), strconv.FormatInt(amount, 10)}
}

// command is the guest's half in a sandbox.
func (n *networked) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, n.sandbox, append([]string{"exec", n.name, "--", "/tmp/" + traffic}, args...)...)
	cmd.Env = n.env
	return cmd
}

// measure returns how long each operation took in the guest.
func (n *networked) measure(ctx context.Context, mode string, connections int, amount int64) (all series, err error) {
	ctx, cancel := context.WithTimeout(ctx, n.timeout)
	defer cancel()
	out, err := n.output(ctx, n.arguments(mode, connections, amount)...)
	if err != nil {
		if failed, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(failed.Stderr))
		}
		return nil, fmt.Errorf("%s on %s: %w", mode, n.name, err)
	}
	for line := range strings.Lines(string(out)) {
		ns, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err != nil {
			return nil, err
		}
		all = append(all, time.Duration(ns))
	}
	return all, nil
}

// memoryHolding is the same as memory while the guest has many connections.
func (n *networked) memoryHolding(ctx context.Context, mode string, connections int) (rss int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, n.timeout)
	defer cancel()
	cmd := n.command(ctx, n.arguments(mode, connections, 0)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err == nil && line == "held\n" {
		rss, err = n.memory()
	}
	stdin.Close()
	if ended := cmd.Wait(); err == nil {
		err = ended
	}
	if err != nil {
		err = fmt.Errorf("holding connections: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return rss, err
}

// serveTraffic answers program traffic on this machine.
func serveTraffic() (net.Listener, error) { return serve(answerTraffic) }

// serve answers connections to a port of this machine.
func serve(answer func(net.Conn) error) (net.Listener, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(loopback, "0"))
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = answer(c)
			}()
		}
	}()
	return l, nil
}

func answerTraffic(c net.Conn) error {
	requests := bufio.NewReader(c)
	for {
		var mode string
		var amount int64
		line, err := requests.ReadString('\n')
		if err != nil {
			return err
		}
		if _, err := fmt.Sscanf(line, "%s %d\n", &mode, &amount); err != nil {
			return err
		}
		switch mode {
		case "down":
			_, err = io.CopyN(c, zeros{}, amount)
			return err
		case "up":
			if _, err = io.CopyN(io.Discard, requests, amount); err == nil {
				_, err = c.Write([]byte{1})
			}
			return err
		default:
			if _, err := c.Write([]byte{1}); err != nil {
				return err
			}
		}
	}
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
