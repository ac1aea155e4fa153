package supervisor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/snapshot"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/virtiofs"
	"github.com/sourcery-zone/sandbox/virtiofs/rules"
)

const (
	// mountPatience is longer than the guest's agent waits for a device.
	mountPatience = 2 * time.Minute
	// unplugPatience is how long a guest may take to let go of a device: an emulated microvm takes six seconds where
	// nothing else runs.
	unplugPatience = time.Minute
)

var errGuestHolds = errors.New("it did not do so in time")

// placeShares decides where the devices of this start's shares are: where a state has them that is loaded, and else
// one after the other.
func (v *supervisor) placeShares(plan *machine.Plan) error {
	v.needs.Places = machine.SharePlaces(len(plan.Shares) + v.config.TemplateShares)
	if v.saved != nil {
		if err := v.checkSaved(plan); err != nil {
			return err
		}
		plan.VM.Ports, plan.VM.SerialPorts = v.saved.Needs.Ports, v.saved.Needs.SerialPorts
		var err error
		if v.needs.Places, err = v.saved.Needs.SharePlaces(plan.Shares, v.saved.Template); err != nil {
			return err
		}
	}
	v.needs.Ports, v.needs.SerialPorts = plan.VM.Ports, plan.VM.SerialPorts
	v.tags = 0
	for _, place := range v.needs.Places {
		var n int
		if _, err := fmt.Sscanf(place.Tag, machine.ShareTags, &n); err == nil {
			v.tags = max(v.tags, n+1)
		}
	}
	return nil
}

// currentServers are the file servers of this moment.
func (v *supervisor) currentServers() []fileServer {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.servers)
}

// mount gives the guest, which runs, another share. What it did is taken back if a step of it fails.
func (v *supervisor) mount(ctx context.Context, share virtiofs.Share) (_ api.Mounted, err error) {
	none := api.Mounted{}
	if !v.transition.TryLock() {
		return none, errTransition
	}
	defer v.transition.Unlock()
	if st := v.currentState(); st.Status != machine.StatusRunning {
		return none, v.s.NotRunning(st)
	}
	if err := v.agentClient().Require(ctx, agent.FeatureHotPlug); err != nil {
		return none, v.explainOldAgent(err)
	}
	if err := v.requireFor(ctx, []virtiofs.Share{share}); err != nil {
		return none, err
	}
	if share.CopyOnWrite {
		if err := v.agentClient().Require(ctx, agent.FeatureHotPlugCopyOnWrite); err != nil {
			return none, v.explainOldAgent(err)
		}
	}
	c, err := v.host.Mounting(v.config, share, v.plan.Image)
	if err != nil {
		return none, err
	}
	share = c.Shares[len(c.Shares)-1]
	e := export{Share: share, tag: machine.ShareTag(v.tags)}
	e.socket = v.s.Files().Share(e.tag)
	if e.port, err = v.freePort(); err != nil {
		return none, err
	}
	v.tags++ // also if it fails: what the guest has seen of a tag does not come again

	var undo []func() error
	defer func() {
		if err == nil {
			return
		}
		for _, do := range slices.Backward(undo) {
			if failed := do(); failed != nil {
				err = errors.Join(err, failed)
				return // the guest has still what would be taken next
			}
		}
	}()
	server, err := v.startShare(ctx, v.plan, e, v.shareLog)
	if err != nil {
		return none, err
	}
	undo = append(undo, func() error { return server.Stop(ctx) })
	if share.CopyOnWrite {
		if err := v.s.BeginWorkspace(ctx, share); err != nil {
			return none, err
		}
		undo = append(undo, func() error { return v.s.SetWorkspaceAside(share) })
	}
	if err := v.plug(ctx, e); err != nil {
		return none, err
	}
	v.mu.Lock()
	v.servers = append(v.servers, server)
	v.mu.Unlock()
	v.deaths.watch(server)
	undo = append(undo, func() error { return v.unplug(ctx, server) })
	mount := e.mount()
	waiting, cancel := context.WithTimeout(ctx, mountPatience)
	defer cancel()
	if err := v.agentClient().Mount(waiting, mount); err != nil {
		return none, err
	}
	undo = append(undo, func() error { return v.agentClient().Unmount(ctx, mount, true) })
	if err := v.recordShares(c.Shares); err != nil {
		return none, err
	}
	v.log.Info("a share was mounted", "share", share.String(), "tag", e.tag, "port", e.port)
	notes := v.otherWriters([]virtiofs.Share{share})
	// What is not watched when the client has gone, is later.
	if note, err := v.tellOf(context.WithoutCancel(ctx), server); err == nil && note != "" {
		notes = append(notes, note)
	}
	if shown := server.shown(); shown.Weak {
		notes = append(notes, weakNote(shown))
	}
	return api.Mounted{Share: share, Notes: notes}, nil
}

// mount is what the guest's agent is told of it.
func (e export) mount() agent.Mount {
	m := agent.Mount{Tag: e.tag, Target: e.MountPoint(), ReadOnly: e.ReadOnly, CopyOnWrite: e.CopyOnWrite}
	if e.CopyOnWrite {
		sum := sha256.Sum256([]byte(e.Source)) // the guest need not know where that is
		m.Origin = hex.EncodeToString(sum[:16])
	}
	if e.File {
		m.File = path.Base(e.Source)
	} else if set, err := rules.New(e.Rules); err == nil && !e.own && e.Clone == "" && (!e.ReadOnly || e.CopyOnWrite) {
		m.Unreadable = strings.Join(set.Ignore(), "\n")
	}
	return m
}

// freePort is the number of a slot of the machine that has no device.
func (v *supervisor) freePort() (int, error) {
	switch {
	case v.needs.Ports == 0:
		return 0, remedy.Add(fmt.Errorf("nothing can be plugged into the machine of %s, which began with a state from before that was possible", v.s.Name), remedy.Restart, v.s.Name)
	case v.memory == nil:
		return 0, remedy.Add(fmt.Errorf("%s shares its memory with other forks, so that no file server can see what it changes in it", v.s.Name), remedy.Restart, v.s.Name)
	}
	taken := map[int]bool{}
	for _, server := range v.currentServers() {
		taken[server.export.port] = true
	}
	for port := 1; port <= v.needs.Ports; port++ {
		if !taken[port] {
			return port, nil
		}
	}
	return 0, remedy.Add(remedy.Add(fmt.Errorf("all %d slots for shares of the machine of %s are taken", v.needs.Ports, v.s.Name), remedy.Unmount, v.s.Name), remedy.Restart, v.s.Name)
}

// plug gives the machine the device of an export that is served.
func (v *supervisor) plug(ctx context.Context, e export) error {
	device := e.device()
	socket, err := qemu.ConnectShare(e.socket)
	if err != nil {
		return err
	}
	defer socket.Close()
	if err := v.monitor.AddSocket(ctx, device.DeviceID(), socket); err != nil {
		return fmt.Errorf("connecting QEMU with the file server: %w", err)
	}
	if err := v.monitor.Plug(ctx, device.PlugArguments()); err != nil {
		return errors.Join(fmt.Errorf("plugging in the share: %w", err), v.monitor.RemoveSocket(ctx, device.DeviceID()))
	}
	return nil
}

// unplug takes the device of a share that is not mounted from the guest, and ends its file server. Without the guest's
// consent all stays as it is.
func (v *supervisor) unplug(ctx context.Context, server fileServer) error {
	id := server.export.device().DeviceID()
	v.deaths.release(server)
	waiting, cancel := context.WithTimeoutCause(ctx, unplugPatience, errGuestHolds)
	defer cancel()
	if err := v.monitor.Unplug(waiting, id); err != nil {
		v.deaths.watch(server)
		return remedy.Add(fmt.Errorf("the share of %s is not mounted any more, and its device is still there: %w", server.export.Source, err), remedy.Restart, v.s.Name)
	}
	v.mu.Lock()
	v.servers = slices.DeleteFunc(slices.Clone(v.servers), func(s fileServer) bool { return s.Server == server.Server })
	v.mu.Unlock()
	// Nobody is connected to the file server then, and it ends.
	return errors.Join(v.monitor.RemoveSocket(ctx, id), server.Stop(ctx))
}

// checkPlugged finds a device that the guest has not let go of, and that would be missing in a machine to which a
// snapshot is restored.
func (v *supervisor) checkPlugged() error {
	for _, server := range v.currentServers() {
		if e := server.export; !e.own && !slices.Contains(v.needs.Places, snapshot.Place{Tag: e.tag, Port: e.port}) {
			return remedy.Add(fmt.Errorf("the guest has still the device of the share of %s, which it could not mount", e.Source), remedy.Restart, v.s.Name)
		}
	}
	return nil
}

// unmount takes a share from the guest, which runs.
func (v *supervisor) unmount(ctx context.Context, target string, force bool) error {
	if !v.transition.TryLock() {
		return errTransition
	}
	defer v.transition.Unlock()
	if st := v.currentState(); st.Status != machine.StatusRunning {
		return v.s.NotRunning(st)
	}
	c, share, err := v.config.Unmounting(target, v.plan.Image)
	if err != nil {
		return err
	}
	servers := v.currentServers()
	i := slices.IndexFunc(servers, func(s fileServer) bool { return !s.export.own && path.Clean(s.export.Target) == share.Target })
	if i < 0 {
		return fmt.Errorf("the share at %s is not mounted: it is at the next start", share.Target)
	}
	server := servers[i]
	if server.export.port == 0 {
		return remedy.Add(fmt.Errorf("the share at %s cannot be unplugged, as the machine of %s began with a state from before that was possible", share.Target, v.s.Name), remedy.Restart, v.s.Name)
	}
	feature := agent.FeatureHotPlug
	if share.CopyOnWrite {
		feature = agent.FeatureHotPlugCopyOnWrite
		lock, err := v.s.LockWorkspaces()
		if err != nil {
			return err
		}
		defer lock.Close()
	}
	if err := v.agentClient().Require(ctx, feature); err != nil {
		return v.explainOldAgent(err)
	}
	waiting, cancel := context.WithTimeout(ctx, mountPatience)
	defer cancel()
	if err := v.agentClient().Unmount(waiting, server.export.mount(), force); err != nil {
		if _, busy := errors.AsType[*agent.BusyError](err); busy {
			return remedy.Add(err, remedy.UnmountNow, v.s.Name, share.Target)
		}
		return err
	}
	if err := v.unplug(ctx, server); err != nil {
		return err
	}
	if share.CopyOnWrite {
		if err := v.s.SetWorkspaceAside(share); err != nil {
			return err
		}
	}
	v.log.Info("a share was unmounted", "share", share.String(), "forced", force)
	return v.recordShares(c.Shares)
}

// recordShares notes the shares that the guest has now: for later starts, for snapshots, and for who asks.
func (v *supervisor) recordShares(shares []virtiofs.Share) error {
	arranged, err := virtiofs.Arrange(shares, v.plan.Image.Manifest.User.Home)
	if err != nil {
		return err
	}
	servers := v.currentServers()
	places := make([]snapshot.Place, len(arranged))
	for i, share := range arranged {
		n := slices.IndexFunc(servers, func(s fileServer) bool { return !s.export.own && s.export.Target == share.Target })
		if n < 0 {
			return fmt.Errorf("the share at %s is not served", share.Target)
		}
		places[i] = snapshot.Place{Tag: servers[n].export.tag, Port: servers[n].export.port}
	}
	if err := v.record(func(c *machine.Config) { c.Shares = shares }); err != nil {
		return err
	}
	v.needs.Shares, v.needs.Places = arranged, places
	return v.setState(func(st *machine.State) {
		was := st.Shares
		st.Shares = nil
		for _, server := range servers {
			shown := server.shown()
			if n := slices.IndexFunc(was, func(s machine.ServedShare) bool { return s.Source == shown.Source }); n >= 0 {
				shown.Changed = was[n].Changed
			}
			st.Shares = append(st.Shares, shown)
		}
	})
}
