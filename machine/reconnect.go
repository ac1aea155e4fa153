package machine

import (
	"context"
	"slices"

	"github.com/sourcery-zone/sandbox/agent"
)

// dialAgent opens an authenticated connection to the agent, and makes it the
// one that everybody uses. It tries until the guest answers or ctx ends.
func (v *supervisor) dialAgent(ctx context.Context) error {
	key, err := readKey(v.s.key(clientKey))
	if err != nil {
		return err
	}
	stream, err := v.mux.Open(ctx)
	if err != nil {
		return err
	}
	client, err := agent.Connect(ctx, stream, key)
	if err != nil {
		return err
	}
	v.mu.Lock()
	v.client = client
	v.mu.Unlock()
	return nil
}

// keepAgent replaces the connection to the agent when it is lost while the
// guest lives on: vsock connections are reset when a guest is restored, and an
// agent that did not answer for long has been given up. Commands that ran over
// the lost connection have ended; new ones work. It ends with the guest.
func (v *supervisor) keepAgent(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go v.cancelWhenDead(ctx, cancel)
	for {
		client := v.agentClient()
		select {
		case <-client.Done():
		case <-ctx.Done():
			return
		}
		if ctx.Err() != nil {
			return
		}
		// So it is too while the guest powers off, until QEMU is gone.
		v.log.Info("the connection to the guest's agent was lost, and is made anew", "err", client.Err())
		if err := v.dialAgent(ctx); err != nil {
			if ctx.Err() == nil {
				v.log.Error("the guest's agent cannot be reached any more", "err", err)
			}
			return
		}
		v.log.Info("the guest's agent is reached again")
		if !v.reached(StageSystem) {
			go v.awaitSystem(ctx)
		}
	}
}

func (v *supervisor) reached(stage string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.ContainsFunc(v.state.Timings, func(t Timing) bool { return t.Stage == stage })
}
