package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/confine"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/gateway"
	"github.com/sourcery-zone/sandbox/network/upstream"
	"github.com/sourcery-zone/sandbox/qemu"
)

// ports lead from this machine to the guest. They are zero without a network.
type ports struct {
	ssh      network.Forward
	forwards []network.Forward // that were asked for
}

// startNetwork begins what the guest's network needs on the host. The one that is
// QEMU's own begins with QEMU.
func (v *supervisor) startNetwork(ctx context.Context) (err error) {
	if v.config.Network == network.ModeNone {
		return nil
	}
	v.learnSearchDomains()
	if v.resolver, err = newResolver(network.ResolverFile, v.chooseDNS, v.log); err != nil {
		return err
	}
	if !v.config.Network.Judged() {
		return nil
	}
	if v.reader, err = v.openReader(); err != nil {
		return err
	}
	proxies, shown := v.chooseUpstream()
	log, err := newLogFile(v.s.Files().Log(layout.NetworkLog))
	if err != nil {
		return err
	}
	allow, deny := v.config.Rules()
	if err := v.openValues(ctx); err != nil {
		return err
	}
	answers, err := v.loginAnswers()
	if err != nil {
		return err
	}
	secrets, err := v.networkSecrets()
	if err != nil {
		return err
	}
	v.gateway, err = gateway.Start(ctx, gateway.Options{
		Mode: v.config.Network, Allow: allow, Deny: deny, HostPorts: v.config.HostPorts, Upstream: proxies, HostName: v.config.Name, Card: network.MAC(v.config.Name), Search: v.search, Resolver: v.resolver.File(),
		Secrets: secrets, Answers: answers, Authority: v.reader.authority, Roots: v.reader.roots, Remedy: v.allowRemedy(),
		Log: log, Logger: v.log, AllowWeak: v.config.AllowWeak, Loopback: v.dialLoopback,
		Died: v.disconnect,
		Started: func(pid int, walls confine.Report) {
			err := v.setState(func(st *machine.State) {
				st.Gateway, st.GatewayWalls, st.Upstream = pid, walls.Walls, shown
				// They were another process's.
				st.Questions = slices.DeleteFunc(slices.Clone(st.Questions), func(q machine.Question) bool { return q.Key == "" })
			})
			if err != nil {
				v.log.Warn("the state does not show the network's process", "err", err)
			}
		},
		Question: v.noteQuestion,
	})
	if err == nil {
		v.values.tell = v.gateway.SetSecret
		err = v.keepValues(ctx)
	}
	return explainWeak(err)
}

// disconnectTimeout is for a guest that is slow to end its connections. It has no network until then.
const disconnectTimeout = 2 * time.Second

// disconnect has the guest end its connections, which nobody serves any more.
func (v *supervisor) disconnect(ctx context.Context) {
	client := v.agentClient()
	if client == nil {
		return // it is about to boot
	}
	v.disconnected.Store(true)
	if v.paused.Load() || !v.transition.TryLock() {
		return // it learns of that as it goes on
	}
	defer v.transition.Unlock()
	ctx, cancel := context.WithTimeout(ctx, disconnectTimeout)
	defer cancel()
	if err := v.resync(ctx, agent.ResumeConfig{}); err != nil {
		v.log.Warn("connections of the guest from before its network died may stand still", "err", err)
	}
}

// allowRemedy is what opens a rule that is appended to it, or empty.
func (v *supervisor) allowRemedy() string { return v.ofSandbox(v.allowCommand) }

// askRemedy is what shows and answers the guest's questions, or empty.
func (v *supervisor) askRemedy() string { return v.ofSandbox(v.askCommand) }

func (v *supervisor) ofSandbox(command string) string {
	if command == "" {
		return ""
	}
	return command + " " + v.config.Name
}

// chooseUpstream returns the proxies by which the guest's connections go, and what is shown
// of them. One of the environment that cannot be used is no reason not to start.
func (v *supervisor) chooseUpstream() (s upstream.Settings, shown string) {
	s = v.config.Proxies(v.upstream)
	proxies, err := upstream.New(s)
	if err != nil {
		v.report(api.Report{Note: fmt.Sprintf("The guest reaches the Internet without a proxy, although the environment names one: %v", err)})
	}
	if proxies == nil {
		return upstream.Settings{}, ""
	}
	return s, s.String()
}

// connectNIC gives the guest a network card, and opens the host's ports to it or
// chooses those that QEMU is to open. The caller holds the lock of the ports.
func (v *supervisor) connectNIC(vm *qemu.Config) (err error) {
	vm.NIC = v.config.NIC(v.config.Name, 0) // a socket is passed later
	switch {
	case v.config.Network == network.ModeNone:
		return nil
	case v.gateway != nil && v.ports.ssh.HostPort != 0:
		return nil // they were opened for the try before
	case v.gateway != nil:
		v.ports, err = choosePorts(v.config, v.gateway.Publish)
		return err
	}
	if v.ports, err = choosePorts(v.config, network.Forward.Resolve); err != nil {
		return err
	}
	user := qemu.UserNetwork{Search: v.search}
	for _, f := range append([]network.Forward{v.ports.ssh}, v.ports.forwards...) {
		user.Forwards = append(user.Forwards, qemu.Forward{
			Proto: f.Proto, HostIP: f.HostIP.String(), HostPort: f.HostPort, GuestPort: f.GuestPort,
		})
	}
	vm.NIC.Backend = user
	return nil
}

// choosePorts completes what the configuration leaves open, and has each port opened,
// or chosen. One that we choose may be taken by somebody who was faster: others than
// sandboxes of ours do not ask for the lock.
func choosePorts(c machine.Config, open func(network.Forward) (network.Forward, error)) (p ports, err error) {
	for tries := 1; ; tries++ {
		ssh, err := network.SSHForward(c.SSHPort, c.Forwards)
		if err == nil {
			p.ssh, err = open(ssh)
		}
		if err == nil {
			break
		}
		if tries == startTries || c.SSHPort != 0 || !errors.Is(err, syscall.EADDRINUSE) {
			return p, err
		}
	}
	for _, f := range c.Forwards {
		if f, err = open(f); err != nil {
			return p, err
		}
		p.forwards = append(p.forwards, f)
	}
	return p, nil
}
