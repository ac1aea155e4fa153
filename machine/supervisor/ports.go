package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/network"
)

const (
	// maxAutoPorts bounds the ports that are published because the guest listens
	// on them.
	maxAutoPorts = 64

	// firstUserPort is the least port of the host that is taken without having been
	// asked for.
	firstUserPort = 1024

	// guestSSHPort is the agent's own, which has a forward of its own.
	guestSSHPort = 22
)

// How often the guest may say that its ports are others. A guest that has said so
// portsBurst times without a break is asked every portsPause: each change costs a
// write of the state file, and all who watch it read it.
const (
	portsPause = 5 * time.Second
	portsBurst = 20
)

// portsRetry is the pause before a guest is asked again whose agent could not be.
const portsRetry = time.Second

// guestPorts are those that the guest says it listens on.
type guestPorts struct {
	mu        sync.Mutex
	auto      bool // they are published
	listening []agent.Port
	forwards  map[int]network.Forward // that are published for that, by the guest's port
}

// watchPorts keeps up with the ports that the guest listens on while it lives.
func (v *supervisor) watchPorts(ctx context.Context) {
	if v.config.Network == network.ModeNone || v.config.Template {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go v.cancelWhenDead(ctx, cancel)
	v.guestPorts.mu.Lock()
	v.guestPorts.auto, v.guestPorts.forwards = v.config.AutoPublish, map[int]network.Forward{}
	v.guestPorts.mu.Unlock()
	limit := rate.NewLimiter(rate.Every(portsPause), portsBurst)
	known := []agent.Port{}
	for limit.Wait(ctx) == nil {
		ports, err := v.agentClient().Ports(ctx, known)
		if errors.Is(err, errors.ErrUnsupported) {
			v.log.Warn("nobody is told on which ports the guest listens", "err", v.explainOldAgent(err))
			return
		}
		if err != nil {
			select {
			case <-time.After(portsRetry): // until then there may be another connection
			case <-ctx.Done():
			}
			continue
		}
		known = ports
		v.guestPorts.mu.Lock()
		v.guestPorts.listening = ports
		err = v.followPorts()
		v.guestPorts.mu.Unlock()
		if err != nil {
			v.log.Warn("the ports that the guest listens on are not all published", "err", err)
		}
	}
}

// followPorts publishes what the guest listens on, if that is wanted, and makes it
// known. The caller holds the lock.
func (v *supervisor) followPorts() error {
	p := &v.guestPorts
	published := v.currentState().Forwards
	wanted := map[int]bool{}
	for _, port := range p.listening {
		number := int(port.Number)
		own := slices.ContainsFunc(published, func(f network.Forward) bool { return f.GuestPort == number && f.Proto != network.UDP })
		if p.auto && number != guestSSHPort && !own && len(wanted) < maxAutoPorts {
			wanted[number] = true
		}
	}
	var errs []error
	for number, f := range p.forwards {
		if !wanted[number] {
			errs = append(errs, v.gateway.Unpublish(f))
			delete(p.forwards, number)
		}
	}
	var ports []machine.GuestPort
	for _, port := range p.listening {
		number := int(port.Number)
		if number == guestSSHPort {
			continue
		}
		if _, open := p.forwards[number]; wanted[number] && !open {
			f, err := autoPublish(number, v.gateway.Publish)
			if err == nil {
				p.forwards[number] = f
			}
			errs = append(errs, err)
		}
		shown := machine.GuestPort{Port: port}
		if f, open := p.forwards[number]; open {
			shown.Published = netip.AddrPortFrom(f.HostIP, uint16(f.HostPort))
		}
		ports = append(ports, shown)
	}
	return errors.Join(append(errs, v.setState(func(st *machine.State) { st.Ports = ports }))...)
}

// autoPublish leads a port of the host's loopback to the guest's: the one of the same
// number, so that what the guest's programs say of their address is right, if that is
// nobody's and needs no privilege, and otherwise any.
func autoPublish(number int, open func(network.Forward) (network.Forward, error)) (network.Forward, error) {
	f := network.Forward{HostIP: netip.AddrFrom4([4]byte{127, 0, 0, 1}), HostPort: number, GuestPort: number, Proto: network.TCP}
	if number >= firstUserPort {
		if opened, err := open(f); err == nil {
			return opened, nil
		}
	}
	f.HostPort = 0
	return open(f)
}

// setAuto says whether what the guest listens on is published from now on, and at
// each later start.
func (v *supervisor) setAuto(auto bool) error {
	if !v.transition.TryLock() {
		return errTransition
	}
	defer v.transition.Unlock()
	if err := v.checkPublish(); err != nil {
		return err
	}
	if err := v.record(func(c *machine.Config) { c.AutoPublish = auto }); err != nil {
		return err
	}
	v.guestPorts.mu.Lock()
	defer v.guestPorts.mu.Unlock()
	v.guestPorts.auto = auto
	if err := v.followPorts(); err != nil {
		return fmt.Errorf("publishing what %s listens on: %w", v.s.Name, err)
	}
	return nil
}

// yieldPorts closes those ports that were opened by ourselves in the place of which the user
// asks for others.
func (v *supervisor) yieldPorts(forwards []network.Forward) error {
	p := &v.guestPorts
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for number, own := range p.forwards {
		if slices.ContainsFunc(forwards, func(f network.Forward) bool {
			return f.Proto != network.UDP && (f.GuestPort == number || f.HostPort == own.HostPort)
		}) {
			errs = append(errs, v.gateway.Unpublish(own))
			delete(p.forwards, number)
		}
	}
	return errors.Join(errs...)
}

// followAgain is followPorts for one who has changed what is published otherwise.
func (v *supervisor) followAgain() {
	v.guestPorts.mu.Lock()
	defer v.guestPorts.mu.Unlock()
	if err := v.followPorts(); err != nil {
		v.log.Warn("the ports that the guest listens on are not all published", "err", err)
	}
}
