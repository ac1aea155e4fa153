package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// connectAgent opens the agent, tells it what this sandbox consists of and
// waits until we can run commands.
func (v *supervisor) connectAgent(ctx context.Context, plan *machine.Plan, conn net.Conn) error {
	if plan.Transport == agent.TransportVsock {
		v.mux = agent.NewVsockMux(v.vsockCID, plan.Image.Manifest.Agent.Port)
	} else {
		mux, err := agent.NewSerialMux(ctx, conn)
		if err != nil {
			return err
		}
		v.mux = mux
	}
	dial := v.dialAgent
	if v.saved != nil {
		dial = v.dialRestored
	}
	if err := dial(ctx); err != nil {
		return err
	}
	v.reach(machine.StageHello, nil)
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
	if err := v.readRegistries(ctx); err != nil {
		return err
	}
	if err := v.lendKeys(ctx); err != nil {
		return err
	}
	return nil
}

// configureGuest tells a guest that boots all, and one that was restored what
// has changed.
func (v *supervisor) configureGuest(ctx context.Context, plan *machine.Plan) error {
	logins, _ := v.config.Logins()
	for _, need := range []struct {
		feature agent.Feature
		needed  bool
	}{
		{agent.FeatureCertificates, len(v.certificates) > 0},
		{agent.FeatureEnvironment, v.config.HasSecrets()},
		{agent.FeatureCaches, len(v.config.Caches) > 0},
		{agent.FeatureFiles, len(logins) > 0},
	} {
		if !need.needed {
			continue
		}
		if err := v.agentClient().Require(ctx, need.feature); err != nil {
			return v.explainOldAgent(err)
		}
	}
	if err := v.requireFor(ctx, v.config.Shares); err != nil {
		return err
	}
	if v.saved == nil {
		// First: what the guest writes from then on has the right time.
		if err := v.syncClock(ctx); err != nil {
			return err
		}
		return v.agentClient().Configure(ctx, v.bootConfig(plan))
	}
	who, err := v.identity(plan)
	if err != nil {
		return err
	}
	// A template has no home and no shares whose files could have changed.
	if err := v.resync(ctx, agent.ResumeConfig{Restored: !v.saved.Template, Become: who}); err != nil {
		return err
	}
	v.agentKey = v.s.Files().Key(layout.ClientKey)
	v.growRestoredDisk(ctx)
	return nil
}

// requireFor finds out whether the guest's agent knows the shares' options.
func (v *supervisor) requireFor(ctx context.Context, shares []virtiofs.Share) error {
	for feature, needs := range map[agent.Feature]func(virtiofs.Share) bool{
		agent.FeatureCopyOnWrite: func(s virtiofs.Share) bool { return s.CopyOnWrite },
		agent.FeatureShareFile:   func(s virtiofs.Share) bool { return s.File },
		agent.FeatureTouch:       func(s virtiofs.Share) bool { return s.Watch },
	} {
		if !slices.ContainsFunc(shares, needs) {
			continue
		}
		if err := v.agentClient().Require(ctx, feature); err != nil {
			return v.explainOldAgent(err)
		}
	}
	return nil
}

// Identity is who the restored guest is to become, or nil if it is the
// sandbox's own already.
func (v *supervisor) identity(plan *machine.Plan) (*agent.Identity, error) {
	was, err := layout.ReadKey(v.agentKey)
	if err != nil {
		return nil, err
	}
	key, err := layout.ReadKey(v.s.Files().Key(layout.ClientKey))
	if err != nil {
		return nil, err
	}
	own := key.PublicKey().Marshal()
	if bytes.Equal(was.PublicKey().Marshal(), own) {
		return nil, nil
	}
	who := &agent.Identity{Config: v.bootConfig(plan), Key: own}
	// QEMU's DHCP server, whose table is restored with the guest, has another IP address for another card than the one to
	// which ports are forwarded.
	if v.config.Network.Judged() {
		who.Card = network.MAC(v.config.Name)
	}
	return who, nil
}

func (v *supervisor) bootConfig(plan *machine.Plan) agent.BootConfig {
	if v.config.Template {
		return agent.BootConfig{Entropy: newEntropy()} // the rest is for who becomes of it
	}
	hostKey, err := os.ReadFile(v.s.Files().Key(layout.HostKey))
	if err != nil {
		v.log.Error("the guest makes its own ssh host key", "err", err)
	}
	var mounts []agent.Mount
	for _, e := range v.exports(plan) {
		mounts = append(mounts, e.mount())
	}
	variables, err := v.config.Variables()
	if err != nil {
		v.log.Error("the guest's git does not know of its credentials", "err", err)
	}
	return agent.BootConfig{
		Environment: append(v.keysEnvironment(), variables...),
		Files:       v.loginFiles(),
		Caches:      v.guestCaches(),
		Hostname:    v.config.Name, Mounts: mounts, AuthorizedKeys: v.config.AuthorizedKeys,
		Certificates: v.certificates, HostKey: hostKey, Entropy: newEntropy(), TimeZone: timeZone("/", os.Getenv("TZ")),
	}
}

// explainOldAgent adds to the error of an agent that is too old which image it is
// of, and what makes that anew.
func (v *supervisor) explainOldAgent(err error) error {
	if _, old := errors.AsType[*agent.UnsupportedError](err); old {
		return remedy.Add(fmt.Errorf("%w (this one has %s)", err, v.config.Image), remedy.RebuildImage)
	}
	return err
}

// awaitSystem notes the second stage of readiness. It ends with the connection
// to the agent.
func (v *supervisor) awaitSystem(ctx context.Context) {
	status, err := v.agentClient().Wait(ctx, agent.StageSystem)
	if err != nil {
		v.log.Warn("the guest's system did not become ready", "err", err)
		return
	}
	v.reach(machine.StageSystem, func(st *machine.State) { st.System, st.Failed = status.System, status.FailedUnits })
}

func (v *supervisor) pumpConsole(conn net.Conn) {
	defer conn.Close()
	v.input.open(conn)
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
