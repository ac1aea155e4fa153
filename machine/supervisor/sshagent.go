package supervisor

import (
	"context"
	"io"
	"net"
	"slices"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/sshagent"
	"github.com/sourcery-zone/sandbox/machine"
)

// lendKeys lets the guest use those keys of the user's agents that it may, over the connection to its own agent that there is
// now.
func (v *supervisor) lendKeys(ctx context.Context) error {
	if err := v.lendSSHKeys(ctx); err != nil {
		return err
	}
	return v.lendGPGKeys(ctx)
}

func (v *supervisor) lendSSHKeys(ctx context.Context) error {
	if len(v.config.SSHAgentKeys) == 0 || v.config.Template {
		return nil
	}
	dial := func(ctx context.Context) (net.Conn, error) { return sshagent.Dial(ctx, v.sshAgent) }
	ask := func(ctx context.Context, use sshagent.Use) error {
		return v.askForKey(ctx, v.config.SSHAgentAsk, machine.Question{Key: use.Key, For: use.For})
	}
	used := func(use sshagent.Use) { v.keyUsed("ssh agent", use.Key, use.For, use.Err) }
	lender := sshagent.NewLender(dial, v.config.SSHAgentKeys, ask, used)
	return v.explainOldAgent(v.agentClient().LendKeys(ctx, func(ctx context.Context, borrower io.ReadWriter) {
		_ = lender.Serve(ctx, borrower) // the guest's fault, which must not fill the log
	}))
}

// askForKey has the user asked before a use of a key that is lent for the asking only: one of those keys.
func (v *supervisor) askForKey(ctx context.Context, keys []string, q machine.Question) error {
	if !slices.Contains(keys, q.Key) {
		return nil
	}
	return v.keys.ask(ctx, q, v.showQuestion)
}

// keyUsed notes a use of a key of one of the user's agents, or with an error that there was none.
func (v *supervisor) keyUsed(lender, key, purpose string, err error) {
	if err != nil {
		v.log.Warn("the guest was refused a signature of the user's "+lender, "key", key, "for", purpose, "err", err)
		return
	}
	v.log.Info("the guest used a key of the user's "+lender, "key", key, "for", purpose)
}

// keysEnvironment are the variables by which programs in the guest find the keys.
func (v *supervisor) keysEnvironment() []string {
	if len(v.config.SSHAgentKeys) == 0 {
		return nil
	}
	return []string{"SSH_AUTH_SOCK=" + agent.KeysSocket}
}
