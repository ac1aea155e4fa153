package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/boot"
	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/hostdir"
	"github.com/sourcery-zone/sandbox/internal/process"
	"github.com/sourcery-zone/sandbox/internal/socketpair"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/qmp"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// readyOverhead compares a whole `sandbox run` with QEMU alone: once up to the
// first word of the guest's agent, and once for a guest that does all that one
// of a sandbox does, up to the command. The second tells what of the first is
// our work on the host and what is the guest's.
func readyOverhead(ctx context.Context, b *bench) ([]figure, error) {
	var ours, first, ready series
	for range b.repeat {
		took, err := measure(ctx, b.whole("run", "--rm", "--transport", "serial", "--", "true"))
		if err != nil {
			return nil, err
		}
		ours = append(ours, took)
		if took, err = measure(ctx, b.rawBoot(false)); err != nil {
			return nil, err
		}
		first = append(first, took)
		if took, err = measure(ctx, b.rawBoot(true)); err != nil {
			return nil, err
		}
		ready = append(ready, took)
	}
	return []figure{
		ratio("ready-overhead", ours, first).with(1.10),
		ratio("ready-overhead-host", ours, ready).with(1.10),
	}, nil
}

// rawBoot is bootRaw for measure.
func (b *bench) rawBoot(ready bool) func(context.Context) (time.Duration, error) {
	return func(ctx context.Context) (time.Duration, error) { return b.bootRaw(ctx, ready) }
}

// bootRaw boots the image with the command line that a sandbox has, and returns
// the time from QEMU's start to its end. The guest is powered off at its
// agent's first word, or with ready set after a command.
func (b *bench) bootRaw(ctx context.Context, ready bool) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	dir, err := os.MkdirTemp(b.dir, "raw")
	if err != nil {
		return 0, err
	}
	key, err := newKey()
	if err != nil {
		return 0, err
	}
	server, err := b.serveHome(ctx, dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, server.Stop(context.WithoutCancel(ctx))) }()
	vm, err := b.rawConfig(dir, key)
	if err != nil {
		return 0, err
	}
	guest, err := startGuest(ctx, b.plan.QEMU, vm, extras{})
	if err != nil {
		return 0, err
	}
	defer guest.stop()
	mux, err := agent.NewSerialMux(ctx, guest.agent)
	if err != nil {
		return 0, guest.explain(err)
	}
	defer mux.Close()
	if err := guest.end(ctx, mux, key, b.img.Manifest.User, ready); err != nil {
		return 0, guest.explain(err)
	}
	select {
	case <-guest.vm.Done():
		return time.Since(guest.started), guest.vm.Err()
	case <-ctx.Done():
		return 0, guest.explain(errors.New("the guest did not power off"))
	}
}

// end brings the guest to its end: at once through its agent, or with ready set
// after all that a sandbox does in a guest and with it for one command.
func (g *rawGuest) end(ctx context.Context, mux agent.Mux, key ssh.Signer, user image.User, ready bool) error {
	stream, err := mux.Open(ctx)
	if err != nil {
		return err
	}
	client, err := agent.Connect(ctx, stream, key)
	if err != nil {
		return err
	}
	defer client.Close()
	if !ready {
		return client.PowerOff(ctx)
	}
	home := agent.Mount{Tag: homeTag, Target: user.Home}
	if err := client.Configure(ctx, agent.BootConfig{Hostname: "raw", Mounts: []agent.Mount{home}}); err != nil {
		return err
	}
	if _, err := client.Wait(ctx, agent.StageAgent); err != nil {
		return err
	}
	if err := client.Command(ctx, "true").Run(); err != nil {
		return err
	}
	if err := client.Sync(ctx); err != nil {
		return err
	}
	monitor := qmp.NewClient(g.conns[0], qmp.Options{})
	defer monitor.Close()
	if err := monitor.Handshake(ctx); err != nil {
		return err
	}
	return monitor.Quit(ctx)
}

const homeTag = "home"

// serveHome shares an empty home, as every sandbox has one.
func (b *bench) serveHome(ctx context.Context, dir string) (*virtiofs.Server, error) {
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return nil, err
	}
	path, err := hostdir.Resolve(home)
	if err != nil {
		return nil, err
	}
	served, err := hostdir.Open(path)
	if err != nil {
		return nil, err
	}
	defer served.Close()
	user := b.img.Manifest.User
	return b.plan.Virtiofsd.Start(ctx, virtiofs.ServerConfig{
		Directory: served, Socket: filepath.Join(dir, "home.sock"),
		GuestUID: user.UID, GuestGID: user.GID, HostUID: os.Getuid(), HostGID: os.Getgid(),
	})
}

// rawConfig completes the plan as a start of a sandbox does.
func (b *bench) rawConfig(dir string, key ssh.Signer) (qemu.Config, error) {
	vm := b.plan.VM
	vm.MonitorFD, vm.AgentFD, vm.ConsoleFD = 3, 4, 5 // the order in startGuest
	vm.Cmdline = slices.Concat(vm.Cmdline, boot.Params{Key: key.PublicKey()}.Words())
	vm.Shares = []qemu.Share{{Tag: homeTag, Socket: filepath.Join(dir, "home.sock")}}
	port, err := network.FreePort("tcp", netip.MustParseAddr(loopback))
	if err != nil {
		return vm, err
	}
	vm.NIC = &qemu.NIC{MAC: network.MAC(vm.Name).String(), Backend: qemu.UserNetwork{
		Forwards: []qemu.Forward{{Proto: "tcp", HostIP: loopback, HostPort: port, GuestPort: 22}},
	}}
	return vm, nil
}

const loopback = "127.0.0.1"

// rawGuest is a QEMU that was started without a supervisor.
type rawGuest struct {
	started time.Time
	vm      *process.Process
	agent   net.Conn // nil without an agent's port
	console *console
	conns   []net.Conn
}

// extras are what a QEMU gets that sandboxes do not have: the first of the files is its descriptor firstExtra.
type extras struct {
	args  []string
	files []*os.File
}

const firstExtra = 6

// startGuest starts QEMU with a socket for each of the monitor, the agent and
// the console that vm has, in this order.
func startGuest(ctx context.Context, caps qemu.Capabilities, vm qemu.Config, more extras) (*rawGuest, error) {
	g := &rawGuest{console: newConsole()}
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	for range 3 {
		ours, file, err := socketpair.New(unix.SOCK_STREAM, "guest")
		if err != nil {
			return nil, err
		}
		g.conns, theirs = append(g.conns, ours), append(theirs, file)
	}
	g.agent = g.conns[1]
	go g.console.read(g.conns[2])
	// QEMU alone: not confined, which is a part of what a sandbox costs.
	args, err := vm.Args(caps)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), caps.Binary, slices.Concat(args, more.args)...)
	cmd.ExtraFiles = slices.Concat(theirs, more.files)
	g.started = time.Now()
	g.vm, err = process.Start(cmd, process.Options{})
	return g, err
}

// stop ends QEMU by force, unless it has ended.
func (g *rawGuest) stop() {
	_ = g.vm.Stop(context.Background(), time.Second) // it is gone, or killed by our own end
	for _, c := range g.conns {
		c.Close()
	}
}

func (g *rawGuest) explain(err error) error {
	return fmt.Errorf("%w\nThe last of the guest's console:\n%s", err, g.console.tail())
}

func newKey() (ssh.Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return ssh.NewSignerFromKey(private)
}
