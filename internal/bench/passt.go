package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/process"
	"github.com/sourcery-zone/sandbox/network/stack"
)

// passtGuest is a guest without a sandbox, whose network is passt.
type passtGuest struct {
	network *process.Process
	raw     *rawGuest
	client  *agent.Client
	program string // in the guest
	close   []func() error
}

// startPasst boots a guest as big as a sandbox's, with program in its home. It returns nil if passt is not installed.
func (b *bench) startPasst(ctx context.Context, program string) (_ *passtGuest, err error) {
	binary, err := exec.LookPath("passt")
	if errors.Is(err, exec.ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	g := &passtGuest{}
	defer func() {
		if err != nil {
			g.stop()
		}
	}()
	dir, err := os.MkdirTemp(b.dir, "passt")
	if err != nil {
		return nil, err
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	server, err := b.serveHome(ctx, dir)
	if err != nil {
		return nil, err
	}
	g.close = append(g.close, func() error { return server.Stop(context.WithoutCancel(ctx)) })
	vm, err := b.rawConfig(dir, key)
	if err != nil {
		return nil, err
	}
	mac := vm.NIC.MAC
	vm.NIC = nil
	card, err := g.connect(binary)
	if err != nil {
		return nil, err
	}
	defer card.Close()
	fd := strconv.Itoa(firstExtra)
	if g.raw, err = startGuest(ctx, b.plan.QEMU, vm, extras{files: []*os.File{card}, args: []string{
		"-netdev", "stream,id=passt,addr.type=fd,addr.str=" + fd,
		"-device", fmt.Sprintf("virtio-net-pci,netdev=passt,mac=%s,host_mtu=%d,romfile=", mac, stack.MaxMTU),
	}}); err != nil {
		return nil, err
	}
	mux, err := agent.NewSerialMux(ctx, g.raw.agent)
	if err != nil {
		return nil, g.raw.explain(err)
	}
	g.close = append(g.close, mux.Close)
	stream, err := mux.Open(ctx)
	if err != nil {
		return nil, g.raw.explain(err)
	}
	if g.client, err = agent.Connect(ctx, stream, key); err != nil {
		return nil, g.raw.explain(err)
	}
	home := agent.Mount{Tag: homeTag, Target: b.img.Manifest.User.Home}
	if err := g.client.Configure(ctx, agent.BootConfig{Hostname: "passt", Mounts: []agent.Mount{home}}); err != nil {
		return nil, err
	}
	if _, err := g.client.Wait(ctx, agent.StageSystem); err != nil {
		return nil, err
	}
	g.program = filepath.Join(home.Target, traffic)
	return g, os.Link(program, filepath.Join(dir, "home", traffic))
}

// connect starts passt, and returns the other end of its socket, for QEMU.
func (g *passtGuest) connect(binary string) (*os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	card, theirs := os.NewFile(uintptr(pair[0]), "card"), os.NewFile(uintptr(pair[1]), "passt")
	defer theirs.Close()
	// The addresses that a guest of a sandbox gives itself, and this machine's loopback for the gateway's, as in QEMU's own.
	cmd := exec.Command(binary, "--foreground", "--quiet", "--fd", "3", "--ipv4-only", "--mtu", strconv.Itoa(stack.MaxMTU),
		"--address", stack.Guest.String(), "--netmask", "24", "--gateway", stack.Gateway.String())
	cmd.ExtraFiles = []*os.File{theirs}
	if g.network, err = process.Start(cmd, process.Options{}); err != nil {
		card.Close()
		return nil, err
	}
	return card, nil
}

func (g *passtGuest) pids() []int { return []int{g.raw.vm.PID(), g.network.PID()} }

func (g *passtGuest) output(ctx context.Context, args ...string) ([]byte, error) {
	return g.client.Command(ctx, append([]string{g.program}, args...)...).Output()
}

func (g *passtGuest) stop() {
	if g.client != nil {
		_ = g.client.Close()
	}
	if g.raw != nil {
		g.raw.stop()
	}
	for _, end := range g.close {
		_ = end() // what it serves is gone
	}
	if g.network != nil {
		_ = g.network.Stop(context.Background(), time.Second)
	}
}
