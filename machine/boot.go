package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/qmp"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// export is a directory of this machine that the guest mounts.
type export struct {
	virtiofs.Share
	tag    string // by which the guest knows it
	socket string // on which it is served
}

// exports lists what the guest mounts, in that order: its home, unless it has
// none here, and the shares.
func (v *supervisor) exports(plan *Plan) []export {
	if v.config.Template {
		return v.templateExports()
	}
	var list []export
	if !v.config.NoHome {
		home := virtiofs.Share{Source: v.s.HomePath(), Target: plan.Image.Manifest.User.Home}
		list = append(list, export{home, homeTag, v.s.fsSocket(0)})
	}
	for i, share := range plan.Shares {
		list = append(list, export{share, shareTag(i), v.s.fsSocket(i + 1)})
	}
	return list
}

// homeTag is the virtiofs tag of the home; shareTag is that of a share.
const homeTag = "home"

func shareTag(i int) string { return fmt.Sprintf("share%d", i) }

// boot starts every process and waits until commands can run in the guest.
// What it started is in v also when it fails: teardown ends it.
func (v *supervisor) boot(ctx context.Context) error {
	img, err := v.s.host.Image(v.config.Image)
	if err != nil {
		return err
	}
	plan, err := v.s.host.Plan(ctx, v.config, img)
	if err != nil {
		return err
	}
	for _, note := range plan.Notes {
		v.report(report{Note: note})
	}
	if v.needs, err = plan.needs(v.config); err != nil {
		return err
	}
	if v.console, err = newLogFile(v.s.LogPath(ConsoleLog)); err != nil {
		return err
	}
	v.sweepLeftovers()
	if v.saved != nil {
		if err := v.checkSaved(plan); err != nil {
			return err
		}
	}
	if err := v.restoreHome(ctx); err != nil {
		return err
	}
	if err := v.startShares(ctx, plan); err != nil {
		return err
	}
	v.reach(StageShares, nil)
	if err := v.prepareDisk(ctx, plan); err != nil {
		return err
	}
	agentConn, err := v.startGuest(ctx, plan)
	if err != nil {
		return err
	}
	ctx, unwatch := v.cancelWhenShareDies(ctx)
	defer unwatch()
	deadline, cancel := context.WithTimeoutCause(ctx, v.config.ReadyTimeout, errNotReady)
	defer cancel()
	go v.cancelWhenDead(deadline, cancel)
	if v.saved != nil {
		if err := v.loadSaved(deadline); err != nil {
			return v.explainNotRestored(deadline, err)
		}
	}
	if err := v.connectAgent(deadline, plan, agentConn); err != nil {
		return v.explainNotReady(deadline, err)
	}
	go v.awaitSystem(context.WithoutCancel(ctx))
	go v.keepAgent(context.WithoutCancel(ctx))
	return nil
}

var errNotReady = errors.New("not ready in time")

// cancelWhenDead ends the wait for a guest that is gone.
func (v *supervisor) cancelWhenDead(ctx context.Context, cancel context.CancelFunc) {
	select {
	case <-v.vm.Done():
		cancel()
	case <-ctx.Done():
	}
}

// explainNotReady says why the guest did not become ready, with what it last
// wrote to its console.
func (v *supervisor) explainNotReady(ctx context.Context, err error) error {
	what := fmt.Sprintf("the guest's agent could not be reached: %v", err)
	if ctx.Err() == nil {
		// A QEMU that dies closes its sockets before its end is known.
		<-exitedWithin(v.vm.Done(), time.Second)
	}
	guest := true
	var dead *deadShareError
	switch {
	case errors.As(context.Cause(ctx), &dead):
		return dead
	case context.Cause(ctx) == errNotReady:
		what = fmt.Sprintf("the guest was not ready after %v (--timeout)", v.config.ReadyTimeout)
	case v.exited() && v.vm.Err() != nil:
		what, guest = "QEMU ended: "+v.vm.Err().Error(), false
	case v.exited():
		what = "the guest powered off before it was ready"
	}
	path := v.s.LogPath(ConsoleLog)
	lines, _ := tail(path, 12) // without them, the message is still true
	message := fmt.Sprintf("%s; its console (%s) is empty", what, path)
	if len(lines) > 0 {
		message = fmt.Sprintf("%s\nThe last lines of its console (all of it: %s):\n%s", what, path, strings.TrimRight(string(lines), "\n"))
	}
	if guest {
		return &GuestError{message}
	}
	return errors.New(message)
}

func (v *supervisor) exited() bool {
	select {
	case <-v.vm.Done():
		return true
	default:
		return false
	}
}

// startShares starts a file server for the home and one for each share.
func (v *supervisor) startShares(ctx context.Context, plan *Plan) error {
	log, err := newLogFile(v.s.LogPath(VirtiofsdLog))
	if err != nil {
		return err
	}
	exports := v.exports(plan)
	v.servers = make([]*virtiofs.Server, len(exports))
	var group errgroup.Group
	// The servers live longer than the start, whose end cancels ctx.
	ctx = context.WithoutCancel(ctx)
	for i, dir := range exports {
		group.Go(func() error {
			uid, gid, err := dir.Owner()
			if err != nil {
				return err
			}
			server, err := plan.Virtiofsd.Start(ctx, virtiofs.ServerConfig{
				Source: dir.Source, Socket: dir.socket, ReadOnly: dir.ReadOnly, Log: log,
				GuestUID: plan.Image.Manifest.User.UID, GuestGID: plan.Image.Manifest.User.GID,
				HostUID: uid, HostGID: gid,
			})
			if err != nil {
				return fmt.Errorf("sharing %s: %w", dir.Source, err)
			}
			v.servers[i] = server
			return nil
		})
	}
	err = group.Wait()
	v.servers = slices.DeleteFunc(v.servers, func(s *virtiofs.Server) bool { return s == nil })
	return err
}

// startTries bounds how often QEMU is started anew because somebody else was
// faster to take what we had chosen.
const startTries = 10

// startGuest starts QEMU with free ports, and returns the connection to its
// agent port.
func (v *supervisor) startGuest(ctx context.Context, plan *Plan) (net.Conn, error) {
	// Until QEMU has bound its ports no other sandbox of ours may choose the
	// same ones.
	ports, err := waitLock(filepath.Join(v.s.host.Dirs.Runtime, portsLock))
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
	return CIDTaken(err.Error()) ||
		(v.config.SSHPort == 0 && strings.Contains(err.Error(), "host forwarding rule"))
}

func (v *supervisor) startQEMU(ctx context.Context, plan *Plan, vm qemu.Config) (_ net.Conn, err error) {
	log, err := newLogFile(v.s.LogPath(QEMULog))
	if err != nil {
		return nil, err
	}
	var ours []net.Conn
	var theirs []*os.File
	defer func() {
		if err == nil {
			return
		}
		for _, c := range ours {
			c.Close()
		}
		if v.vm != nil { // the next try starts from nothing
			_ = v.vm.Stop(context.WithoutCancel(ctx), 0)
		}
	}()
	for _, name := range []string{"qmp", "agent", "console"} {
		conn, file, err := socketPair(name)
		if err != nil {
			return nil, errors.Join(err, closeAll(theirs))
		}
		ours, theirs = append(ours, conn), append(theirs, file)
	}
	user, err := qemu.UnprivilegedUser(os.Getpid())
	if err == nil {
		theirs, err = v.passMemory(ctx, user, &vm, theirs)
	}
	var opened []qemu.OpenFile
	if err == nil && user != nil { // who cannot enter our directories
		vm, theirs, opened, err = vm.OpenFor(user, theirs)
	}
	if err != nil {
		return nil, errors.Join(err, closeAll(theirs))
	}
	v.qemuBinary = plan.QEMU.Binary
	argv, err := vm.Args(plan.QEMU)
	if err != nil {
		return nil, errors.Join(err, closeAll(theirs))
	}
	v.vm, err = qemu.StartAs(context.WithoutCancel(ctx), user, plan.QEMU, vm, theirs, log)
	// Only QEMU may hold its ends, so that we see them close when it dies.
	if err = errors.Join(err, closeAll(theirs)); err != nil {
		return nil, err
	}
	go v.pumpConsole(ours[2])
	v.monitor = qmp.NewClient(ours[0], qmp.Options{Logger: v.log})
	if err := v.monitor.Handshake(ctx); err != nil {
		// A QEMU that refuses its configuration says so on its way out.
		<-exitedWithin(v.vm.Done(), time.Second)
		if v.exited() && v.vm.Err() != nil {
			return nil, v.vm.Err()
		}
		return nil, fmt.Errorf("QEMU does not answer on its monitor: %w", err)
	}
	v.watchDisk(context.WithoutCancel(ctx))
	v.reach(StageQEMU, func(st *State) {
		st.QEMU, st.QEMUVer = v.vm.PID(), plan.QEMU.Version.String()
		st.Accel, st.AccelNote, st.Machine = string(vm.Accel), plan.KVM.Reason, string(vm.Machine)
		st.Transport = plan.Transport
		st.SSHPort, st.Forwards = publishedPorts(vm, v.config.Forwards)
		st.Argv, st.Files = append([]string{plan.QEMU.Binary}, argv...), opened
	})
	return ours[1], nil
}

func closeAll(files []*os.File) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// vmConfig is the plan with the ports of this start.
func (v *supervisor) vmConfig(plan *Plan) (qemu.Config, error) {
	vm := plan.VM
	key, err := readKey(v.s.key(clientKey))
	if err != nil {
		return vm, err
	}
	vm.Cmdline = append(append([]string{}, vm.Cmdline...), keyArgument(key.PublicKey()), "sandbox.transport="+plan.transportArgument())
	for _, e := range v.exports(plan) {
		vm.Shares = append(vm.Shares, qemu.Share{Tag: e.tag, Socket: e.socket})
	}
	if plan.Transport == TransportVsock {
		vm.VsockCID = randomCID()
	}
	v.vsockCID = vm.VsockCID
	vm.Incoming = v.saved != nil
	if v.config.Network == network.ModeNone {
		return vm, nil
	}
	ssh, err := network.SSHForward(v.config.SSHPort, v.config.Forwards)
	if err != nil {
		return vm, err
	}
	nic := &qemu.UserNetwork{MAC: network.MAC(v.config.Name)}
	for _, f := range append([]network.Forward{ssh}, v.config.Forwards...) {
		f, err := f.Resolve()
		if err != nil {
			return vm, err
		}
		nic.Forwards = append(nic.Forwards, qemu.Forward{
			Proto: f.Proto, HostIP: f.HostIP.String(), HostPort: f.HostPort, GuestPort: f.GuestPort,
		})
	}
	vm.Network = nic
	return vm, nil
}

// publishedPorts returns the host port of ssh, and the other forwards with the
// ports that were chosen for them; vmConfig puts the one for ssh first.
func publishedPorts(vm qemu.Config, forwards []network.Forward) (ssh int, chosen []network.Forward) {
	if vm.Network == nil {
		return 0, nil
	}
	for i, f := range forwards {
		f.HostPort = vm.Network.Forwards[i+1].HostPort
		chosen = append(chosen, f)
	}
	return vm.Network.Forwards[0].HostPort, chosen
}

func (v *supervisor) pumpConsole(conn net.Conn) {
	defer conn.Close()
	v.hvc.open(conn)
	buf := make([]byte, 32<<10)
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			_, _ = v.console.Write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

// connectAgent opens the agent, tells it what this sandbox consists of and
// waits until commands can run.
func (v *supervisor) connectAgent(ctx context.Context, plan *Plan, conn net.Conn) error {
	if plan.Transport == TransportVsock {
		conn.Close()
		v.mux = agent.NewVsockMux(v.vsockCID, plan.Image.Manifest.Agent.Port)
	} else {
		mux, err := agent.NewSerialMux(ctx, conn)
		if err != nil {
			return err
		}
		v.mux = mux
	}
	if err := v.dialAgent(ctx); err != nil {
		return err
	}
	v.reach(StageHello, nil)
	if err := v.configureGuest(ctx, plan); err != nil {
		return err
	}
	status, err := v.agentClient().Wait(ctx, agent.StageAgent)
	if err != nil {
		return err
	}
	if err := v.checkDisk(status); err != nil {
		return err
	}
	v.reach(StageAgent, func(st *State) { st.Status = StatusRunning })
	return nil
}

// configureGuest tells a guest that boots all, and one that was restored what
// has changed.
func (v *supervisor) configureGuest(ctx context.Context, plan *Plan) error {
	if v.saved == nil {
		return v.agentClient().Configure(ctx, v.bootConfig(plan))
	}
	who, err := v.identity(plan)
	if err != nil {
		return err
	}
	// A template has no home and no shares whose files could have changed.
	if err := v.setRight(ctx, agent.ResumeConfig{Restored: !v.saved.Template, Become: who}); err != nil {
		return err
	}
	v.agentKey = v.s.key(clientKey)
	v.growRestoredDisk(ctx)
	return nil
}

// identity is who the restored guest is to become, or nil if it is the
// sandbox's own already.
func (v *supervisor) identity(plan *Plan) (*agent.Identity, error) {
	was, err := readKey(v.agentKey)
	if err != nil {
		return nil, err
	}
	key, err := readKey(v.s.key(clientKey))
	if err != nil {
		return nil, err
	}
	own := key.PublicKey().Marshal()
	if bytes.Equal(was.PublicKey().Marshal(), own) {
		return nil, nil
	}
	return &agent.Identity{Config: v.bootConfig(plan), Key: own}, nil
}

func (v *supervisor) bootConfig(plan *Plan) agent.BootConfig {
	if v.config.Template {
		return agent.BootConfig{Entropy: newEntropy(), Time: time.Now()} // the rest is for who becomes of it
	}
	hostKey, err := os.ReadFile(v.s.key(hostKey))
	if err != nil {
		v.log.Error("the guest makes its own ssh host key", "err", err)
	}
	var mounts []agent.Mount
	for _, e := range v.exports(plan) {
		mounts = append(mounts, agent.Mount{Tag: e.tag, Target: e.Target, ReadOnly: e.ReadOnly})
	}
	return agent.BootConfig{
		Hostname: v.config.Name, Mounts: mounts, AuthorizedKeys: v.config.AuthorizedKeys,
		HostKey: hostKey, Entropy: newEntropy(), Time: time.Now(),
	}
}

// awaitSystem notes the second stage of readiness. It ends with the connection
// to the agent.
func (v *supervisor) awaitSystem(ctx context.Context) {
	status, err := v.agentClient().Wait(ctx, agent.StageSystem)
	if err != nil {
		v.log.Warn("the guest's system did not become ready", "err", err)
		return
	}
	v.reach(StageSystem, func(st *State) { st.System, st.Failed = status.System, status.FailedUnits })
}

// socketPair makes a connected pair: an end for us, and one to be inherited.
func socketPair(name string) (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making the %s socket: %w", name, err)
	}
	ours := os.NewFile(uintptr(fds[0]), name)
	defer ours.Close() // net.FileConn duplicates it
	theirs := os.NewFile(uintptr(fds[1]), name)
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("making the %s socket: %w", name, err)
	}
	return conn, theirs, nil
}
