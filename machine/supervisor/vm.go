package supervisor

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/boot"
	"github.com/sourcery-zone/sandbox/internal/flock"
	"github.com/sourcery-zone/sandbox/internal/socketpair"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/qmp"
)

// startTries bounds how often QEMU is started anew because somebody else was
// faster to take what we had chosen.
const startTries = 10

// startGuest starts QEMU with free ports, and returns the connection to its
// agent port, which it has only if the transport needs that.
func (v *supervisor) startGuest(ctx context.Context, plan *machine.Plan) (net.Conn, error) {
	// Until QEMU has bound its ports no other sandbox of ours may choose the
	// same ones.
	ports, err := flock.Wait(filepath.Join(v.host.Dirs.Runtime, layout.PortsLock), nil)
	if err != nil {
		return nil, err
	}
	defer ports.Close()
	for tries := 1; ; tries++ {
		vm, err := v.vmConfig(plan)
		if err != nil {
			return nil, err
		}
		conn, err := v.startQEMU(ctx, plan, vm)
		if err == nil || tries == startTries || !v.lostRace(err) {
			return conn, err
		}
		v.log.Info("starting again with other choices", "err", err)
		// The file servers have ended with the QEMU that was connected to them.
		for _, server := range v.servers {
			_ = server.Stop(ctx)
		}
		if err := v.startShares(ctx, plan); err != nil {
			return nil, err
		}
	}
}

// lostRace tells whether QEMU found something taken that we, and not the user,
// had chosen. Only QEMU can tell: context ids are shared by all machines of a
// host without a list of those in use, and ports by all users.
func (v *supervisor) lostRace(err error) bool {
	return qemu.CIDTaken(err.Error()) || v.config.SSHPort == 0 && qemu.PortTaken(err.Error())
}

// readyQEMU begins what becomes QEMU, while other things are done that a start
// takes.
func (v *supervisor) readyQEMU(ctx context.Context, plan *machine.Plan) error {
	log, err := newLogFile(v.s.Files().Log(layout.QEMULog))
	if err != nil {
		return err
	}
	v.launcher, err = qemu.Ready(context.WithoutCancel(ctx), plan.QEMU, qemu.LaunchOptions{
		Accel: plan.VM.Accel, HostNetwork: v.config.Network == network.ModeUser, Log: log, AllowWeak: v.config.AllowWeak,
	})
	return err
}

func (v *supervisor) startQEMU(ctx context.Context, plan *machine.Plan, vm qemu.Config) (_ net.Conn, err error) {
	if v.launcher == nil { // another try
		if err := v.readyQEMU(ctx, plan); err != nil {
			return nil, err
		}
	}
	files := &qemu.Files{}
	defer files.Close() // those of a start that does not get as far as QEMU
	ours, err := connectSockets(&vm, files, plan.Transport, v.needs.EarlyConsole)
	defer func() {
		if err == nil {
			return
		}
		ours.close()
		if v.vm != nil { // the next try starts from nothing
			_ = v.vm.Stop(context.WithoutCancel(ctx), 0)
		}
	}()
	if err != nil {
		return nil, err
	}
	if err := v.passMemory(ctx, &vm, files); err != nil {
		return nil, err
	}
	if v.gateway != nil {
		socket, err := duplicate(v.gateway.QEMU())
		if err != nil {
			return nil, err
		}
		vm.NIC.Backend = qemu.DatagramSocket{FD: files.Add(socket)}
	}
	started, err := v.launch(v.launcher, vm, qemu.StartOptions{Files: files, Resolver: v.resolver.File()})
	v.launcher = nil
	if err != nil {
		return nil, explainWeak(err)
	}
	v.vm = started
	go v.pumpConsole(ours.console)
	if early := ours.earlyConsole; early != nil {
		go func() {
			defer early.Close()
			_, _ = io.Copy(v.console, early) // until QEMU ends
		}()
	}
	v.monitor = qmp.NewClient(ours.monitor, qmp.Options{Logger: v.log})
	if err := v.monitor.Handshake(ctx); err != nil {
		// A QEMU that refuses its configuration says so on its way out.
		<-exitedWithin(v.vm.Done(), time.Second)
		if v.exited() && v.vm.Err() != nil {
			return nil, v.vm.Err()
		}
		return nil, fmt.Errorf("QEMU does not answer on its monitor: %w", err)
	}
	v.watchEnd(context.WithoutCancel(ctx))
	v.watchDisk(context.WithoutCancel(ctx))
	v.reach(machine.StageQEMU, func(st *machine.State) {
		st.QEMU, st.QEMUVer = v.vm.PID(), plan.QEMU.Version.String()
		st.Accel, st.AccelNote, st.Machine = string(vm.Accel), plan.KVM.Reason, string(vm.Machine)
		st.Transport = plan.Transport
		st.SSHPort, st.Forwards = v.ports.ssh.HostPort, v.ports.forwards
		st.Argv, st.Files, st.Walls = v.vm.Argv, v.vm.Files, v.vm.Walls.Walls
	})
	if missing := v.vm.Walls.Missing(); len(missing) > 0 && !v.walled {
		v.report(api.Report{Note: missingWalls(missing)})
	}
	v.walled = true
	return ours.agent, nil
}

// vmConfig is the plan with the ports of this start.
func (v *supervisor) vmConfig(plan *machine.Plan) (qemu.Config, error) {
	vm := plan.VM
	key, err := layout.ReadKey(v.s.Files().Key(layout.ClientKey))
	if err != nil {
		return vm, err
	}
	vm.Cmdline = slices.Concat(vm.Cmdline, bootParams(plan, v.config, key.PublicKey()).Words())
	for _, e := range v.exports(plan) {
		vm.Shares = append(vm.Shares, e.device())
	}
	if plan.Transport == agent.TransportVsock {
		vm.VsockCID = randomCID()
	}
	v.vsockCID = vm.VsockCID
	vm.Incoming = v.saved != nil
	return vm, v.connectNIC(&vm)
}

// sockets are our ends of those that QEMU has; nil: it has none.
type sockets struct{ monitor, agent, console, earlyConsole net.Conn }

// connectSockets makes the sockets, of which it adds QEMU's ends to the files. The
// caller closes ours, also after an error.
func connectSockets(vm *qemu.Config, files *qemu.Files, transport agent.Transport, earlyConsole bool) (ours sockets, err error) {
	for _, s := range []struct {
		name   string
		ours   *net.Conn
		fd     *int
		wanted bool
	}{
		{"qmp", &ours.monitor, &vm.MonitorFD, true},
		{"agent", &ours.agent, &vm.AgentFD, transport == agent.TransportSerial},
		{"console", &ours.console, &vm.ConsoleFD, true},
		{"early console", &ours.earlyConsole, &vm.EarlyConsoleFD, earlyConsole},
	} {
		if !s.wanted {
			continue
		}
		conn, theirs, err := socketpair.New(unix.SOCK_STREAM, s.name)
		if err != nil {
			return ours, fmt.Errorf("making the %s socket: %w", s.name, err)
		}
		*s.ours, *s.fd = conn, files.Add(theirs)
	}
	return ours, nil
}

func (s sockets) close() {
	for _, conn := range []net.Conn{s.monitor, s.agent, s.console, s.earlyConsole} {
		if conn != nil {
			conn.Close()
		}
	}
}

// bootParams are what the guest is told by its kernel's command line.
func bootParams(p *machine.Plan, c machine.Config, key ssh.PublicKey) boot.Params {
	params := boot.Params{Key: key}
	if p.Transport == agent.TransportVsock {
		params.VsockPort = p.Image.Manifest.Agent.Port
	}
	if c.DiskMiB != 0 {
		params.DiskSerial = layout.DiskDir
	}
	return params
}
