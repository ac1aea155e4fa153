//go:build linux

package agenttest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/internal/wire"
	"github.com/sourcery-zone/sandbox/agent/server"
)

var _ server.Controller = (*Guest)(nil)

// Guest stands in for the guest's own service: a [server.Controller] that does
// nothing but note what it is told. What it is to say is set before anybody asks,
// and what it was told is read when the call that told it has returned.
type Guest struct {
	// Ready holds all stages, and with them all commands, up until it is closed.
	Ready chan struct{}
	// Failure is what Configure and Wait end with.
	Failure error
	// State is what Status returns.
	State agent.Status
	// Listening gets the ports on which programs listen, each time that they
	// change. Nil stands for a guest without any.
	Listening chan []agent.Port
	// Workspaces are the copy-on-write shares, by their tags.
	Workspaces map[string]server.Workspace
	// Ahead is how far the guest's clock is ahead of ours.
	Ahead time.Duration
	// MountError is what Mount ends with, and Users are what Unmount finds.
	MountError error
	Users      agent.Users
	// Forgets is what a guest does that is to forget files. Nil stands for nothing.
	Forgets func()
	// Touched gets the names that the host has changed, by the tag of their share. Nil stands for a guest without any.
	Touched chan map[string][]agent.Touch

	Configured         *agent.BootConfig   // by the host; nil: not yet
	Resumed            *agent.ResumeConfig // likewise
	Mounted            []agent.Mount       // since, and not unmounted
	DiskBytes          int64               // what the disk has grown to; 0: it has not
	PoweredOff, Synced bool                // whether it was told to

	mu sync.Mutex
}

// Configure implements [server.Controller].
func (g *Guest) Configure(_ context.Context, config agent.BootConfig) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.Configured != nil {
		return &wire.ControlError{Code: wire.CodeAlreadyConfigured, Message: "configured before"}
	}
	g.Configured = &config
	return g.Failure
}

// Status implements [server.Controller].
func (g *Guest) Status() agent.Status { return g.State }

// Wait implements [server.Controller].
func (g *Guest) Wait(ctx context.Context, _ agent.Stage) error {
	select {
	case <-g.Ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.Failure
}

// PowerOff implements [server.Controller].
func (g *Guest) PowerOff(context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.PoweredOff = true
	return nil
}

// Sync implements [server.Controller].
func (g *Guest) Sync(context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.Synced = true
	return nil
}

// Resume implements [server.Controller].
func (g *Guest) Resume(_ context.Context, config agent.ResumeConfig) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.Resumed = &config
	return nil
}

// GrowDisk implements [server.Controller].
func (g *Guest) GrowDisk(_ context.Context, bytes int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.DiskBytes = bytes
	return nil
}

// Ports implements [server.Controller].
func (g *Guest) Ports(ctx context.Context, _ []agent.Port) ([]agent.Port, error) {
	select {
	case ports := <-g.Listening:
		return ports, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Workspace implements [server.Controller].
func (g *Guest) Workspace(tag string) (server.Workspace, error) {
	if w := g.Workspaces[tag]; w != nil {
		return w, nil
	}
	return nil, fmt.Errorf("no share has the tag %q", tag)
}

// Mount implements [server.Controller].
func (g *Guest) Mount(_ context.Context, m agent.Mount) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.MountError != nil {
		return g.MountError
	}
	g.Mounted = append(g.Mounted, m)
	return nil
}

// Unmount implements [server.Controller].
func (g *Guest) Unmount(_ context.Context, tag string, force bool) (agent.Users, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.Users.Busy && !force {
		return g.Users, nil
	}
	g.Mounted = slices.DeleteFunc(g.Mounted, func(m agent.Mount) bool { return m.Tag == tag })
	return agent.Users{}, nil
}

// Forget implements [server.Controller].
func (g *Guest) Forget() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.Forgets != nil {
		g.Forgets()
	}
	return nil
}

// Touch implements [server.Controller].
func (g *Guest) Touch(ctx context.Context, tag string, _ time.Time, names []agent.Touch) error {
	if g.Touched == nil {
		return nil
	}
	select {
	case g.Touched <- map[string][]agent.Touch{tag: names}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Clock implements [server.Controller].
func (g *Guest) Clock(advance time.Duration) (time.Time, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.Ahead += advance
	return time.Now().Add(g.Ahead), nil
}
