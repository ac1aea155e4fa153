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
	lender := sshagent.NewLender(func(ctx context.Context) (net.Conn, error) { return sshagent.Dial(ctx, v.sshAgent) }, v.config.SSHAgentKeys, v.askForKey, v.keyUsed)
	return v.explainOldAgent(v.agentClient().LendKeys(ctx, func(ctx context.Context, borrower io.ReadWriter) {
		_ = lender.Serve(ctx, borrower) // the guest's fault, which must not fill the log
	}))
}

// askForKey has the user asked before a use of a key that is lent for the asking only.
func (v *supervisor) askForKey(ctx context.Context, use sshagent.Use) error {
	if !slices.Contains(v.config.SSHAgentAsk, use.Key) {
		return nil
	}
	return v.keys.ask(ctx, machine.Question{Key: use.Key, For: use.For}, v.showQuestion)
}

func (v *supervisor) keyUsed(use sshagent.Use) {
	if use.Err != nil {
		v.log.Warn("the guest was refused a signature of the user's ssh agent", "key", use.Key, "for", use.For, "err", use.Err)
		return
	}
	v.log.Info("the guest used a key of the user's ssh agent", "key", use.Key, "for", use.For)
}

// keysEnvironment are the variables by which programs in the guest find the keys.
func (v *supervisor) keysEnvironment() []string {
	if len(v.config.SSHAgentKeys) == 0 {
		return nil
	}
	return []string{"SSH_AUTH_SOCK=" + agent.KeysSocket}
}
