package supervisor

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

// dialAgent opens an authenticated connection to the agent, and makes it the
// one that everybody uses. It tries until the guest answers or ctx ends.
func (v *supervisor) dialAgent(ctx context.Context) error {
	stream, key, err := v.openAgent(ctx)
	if err != nil {
		return err
	}
	client, err := v.guestKey.Connect(ctx, stream, key)
	if err != nil {
		return err
	}
	v.mu.Lock()
	v.client = client
	v.mu.Unlock()
	return nil
}

// loginToAgent opens another connection to the agent, for one who needs it for
// himself, and closes it.
func (v *supervisor) loginToAgent(ctx context.Context) (*ssh.Client, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, loginTimeout, errNoLogin)
	defer cancel()
	stream, key, err := v.openAgent(ctx)
	if err != nil {
		return nil, err
	}
	return v.guestKey.Login(ctx, stream, key)
}

// openAgent opens a stream to the agent, with the key that opens the agent.
func (v *supervisor) openAgent(ctx context.Context) (net.Conn, ssh.Signer, error) {
	key, err := layout.ReadKey(v.agentKey)
	if err != nil {
		return nil, nil, err
	}
	stream, err := v.mux.Open(ctx)
	return stream, key, err
}

// dialRestored is dialAgent for a guest that was restored. Over vsock, it
// resets all connections when it notices that, also one that was faster, and
// that one's other end does not hear of it.
func (v *supervisor) dialRestored(ctx context.Context) error {
	if v.vsockCID == 0 {
		return v.dialAgent(ctx)
	}
	if !v.redial(ctx, v.dialAgent) {
		return context.Cause(ctx)
	}
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
		if !v.redial(ctx, v.dialAgent) {
			return
		}
		v.log.Info("the guest's agent is reached again")
		if err := v.lendKeys(ctx); err != nil {
			v.log.Warn("the guest cannot use the keys that it may", "err", err)
		}
		if !v.reached(machine.StageSystem) {
			go v.awaitSystem(ctx)
		}
	}
}

// The pauses between two tries to reach the agent. A guest that is very slow
// has been seen to give a login up before it was done.
const (
	redialPause    = time.Second
	maxRedialPause = time.Minute
)

// loginTimeout is how long a try may take: a connection may be dead without a
// sign. After that time the guest gives a login up itself. One that is emulated
// within an emulated one has been seen to need 21 seconds once it is restored.
const loginTimeout = time.Minute

var errNoLogin = errors.New("the guest's agent did not answer the login in time")

// redial calls dial until it succeeds, and returns false if ctx ends before.
func (v *supervisor) redial(ctx context.Context, dial func(context.Context) error) bool {
	for pause := redialPause; ; pause = min(2*pause, maxRedialPause) {
		try, cancel := context.WithTimeoutCause(ctx, loginTimeout, errNoLogin)
		err := dial(try)
		cancel()
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		v.log.Warn("the guest's agent cannot be reached, and is tried again", "in", pause, "err", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false
		}
	}
}

func (v *supervisor) reached(stage string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.ContainsFunc(v.state.Timings, func(t machine.Timing) bool { return t.Stage == stage })
}
