package supervisor

import (
	"context"
	"errors"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/virtiofs/gate"
	"github.com/sourcery-zone/sandbox/virtiofs/watch"
)

const (
	// touchTimeout is when a guest that does not answer is told anew: it may have been paused, or restored.
	touchTimeout = time.Minute
	// touchRetry is the pause before it is.
	touchRetry = time.Second
)

// tellGuest begins to tell the guest's programs of what this machine changes in the shares that have the option. When it
// returns, all that there is is watched, or the user knows what is not.
func (v *supervisor) tellGuest(ctx context.Context) error {
	for _, server := range v.currentServers() {
		note, err := v.tellOf(ctx, server)
		if err != nil {
			return err
		}
		if note != "" {
			v.report(api.Report{Note: note})
		}
	}
	return nil
}

// tellOf does so for one share, if it has the option. The note says what is not watched.
func (v *supervisor) tellOf(ctx context.Context, server fileServer) (note string, err error) {
	if server.changes == nil {
		return "", nil
	}
	err = server.changes.Scanned(ctx)
	if ctx.Err() != nil {
		return "", err
	}
	if err != nil {
		v.log.Warn("the guest is not told of all changes", "share", server.export.Source, "err", err)
		note = err.Error()
	}
	go v.touch(context.WithoutCancel(ctx), server, err != nil)
	return note, nil
}

// touch tells of changes until the share ends. While the guest is busy or paused, they wait, and those of one name become
// one. Limited says that it is known that not all is watched.
func (v *supervisor) touch(ctx context.Context, server fileServer, limited bool) {
	for {
		changes, err := server.changes.Take(ctx, agent.MaxTouches)
		if err != nil {
			return // closed
		}
		if err := server.changes.Scanned(ctx); err != nil && !limited {
			v.log.Warn("the guest is not told of all changes any more", "share", server.export.Source, "err", err)
			limited = true
		}
		if err := v.touchAll(ctx, server, changes); err != nil {
			v.log.Warn("the guest was not told of changes", "share", server.export.Source, "names", len(changes), "err", err)
			if errors.Is(err, errors.ErrUnsupported) {
				return
			}
		}
	}
}

func (v *supervisor) touchAll(ctx context.Context, server fileServer, changes []watch.Change) error {
	names := make([]agent.Touch, len(changes))
	for i, c := range changes {
		names[i] = agent.Touch(c)
	}
	for {
		for v.paused.Load() {
			if !waitToTouch(server) {
				return nil
			}
		}
		client := v.agentClient()
		asking, cancel := context.WithTimeout(ctx, touchTimeout)
		err := client.Touch(asking, server.export.tag, time.Unix(gate.TouchTime.Unix()), names)
		again := asking.Err() != nil
		cancel()
		select {
		case <-client.Done(): // there will be another connection
			again = true
		default:
		}
		if err == nil || !again {
			return err
		}
		if !waitToTouch(server) {
			return nil
		}
	}
}

// waitToTouch returns false if the share ends meanwhile.
func waitToTouch(server fileServer) bool {
	select {
	case <-time.After(touchRetry):
		return true
	case <-server.Done():
		return false
	}
}
