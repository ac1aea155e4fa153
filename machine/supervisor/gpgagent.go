package supervisor

import (
	"context"
	"io"
	"net"
	"slices"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/gpgagent"
	"github.com/sourcery-zone/sandbox/machine"
)

// takeGPGKeys is run by the guest's user at each start. It leads gpg to our socket, by the kind of file that libassuan follows,
// in both places where it may look for its agent's, and gives it the public keys. Debian has the user's systemd listen there
// for an agent of the guest's own.
const takeGPGKeys = `set -e
umask 077
socket=$1
shift
home=$HOME/.gnupg run=/run/user/$(id -u)
mkdir -p "$home"
if [ -d "$run" ]; then
	mkdir -p "$run/gnupg" "$run/systemd/user"
	ln -sfn /dev/null "$run/systemd/user/gpg-agent.socket"
fi
for place in "$home" "$run/gnupg"; do
	if [ ! -d "$place" ]; then continue; fi
	rm -f "$place/S.gpg-agent"
	printf '%%Assuan%%\nsocket=%s\n' "$socket" >"$place/S.gpg-agent"
done
rm -f "$home/lent.asc"
printf '%s\n' "$@" >"$home/lent.asc"
if command -v gpg >/dev/null; then gpg --batch --quiet --no-autostart --import "$home/lent.asc"; fi
`

// takeTime is for an emulated guest on a busy host.
const takeTime = time.Minute

// lendGPGKeys is lendKeys for the user's gpg-agent.
func (v *supervisor) lendGPGKeys(ctx context.Context) error {
	if len(v.config.GPGAgentKeys) == 0 || v.config.Template {
		return nil
	}
	dial := func(ctx context.Context) (net.Conn, error) { return gpgagent.Dial(ctx, v.gpgAgent) }
	prompt := "The sandbox " + v.config.Name + " asks for an OpenPGP signature."
	lender := gpgagent.NewLender(dial, v.config.GPGAgentKeys, prompt, v.askForGPGKey, v.gpgKeyUsed)
	err := v.agentClient().LendGPGKeys(ctx, func(ctx context.Context, borrower io.ReadWriter) {
		_ = lender.Serve(ctx, borrower) // the guest's fault, which must not fill the log
	})
	if err != nil {
		return v.explainOldAgent(err)
	}
	args := []string{agent.GPGSocket}
	for _, key := range v.config.GPGAgentKeys {
		args = append(args, key.Public)
	}
	ctx, cancel := context.WithTimeout(ctx, takeTime)
	defer cancel()
	if err := v.runInGuest(ctx, "", takeGPGKeys, args...); err != nil { // what the guest's user may have brought about
		v.log.Warn("the guest's gpg does not know of the keys that are lent", "err", err)
	}
	return nil
}

// askForGPGKey has the user asked before a use of a key that is lent for the asking only.
func (v *supervisor) askForGPGKey(ctx context.Context, use gpgagent.Use) error {
	if !slices.Contains(v.config.GPGAgentAsk, use.Key) {
		return nil
	}
	return v.keys.ask(ctx, machine.Question{Key: use.Key, For: use.For}, v.showQuestion)
}

func (v *supervisor) gpgKeyUsed(use gpgagent.Use) {
	if use.Err != nil {
		v.log.Warn("the guest was refused a signature of the user's gpg-agent", "key", use.Key, "for", use.For, "err", use.Err)
		return
	}
	v.log.Info("the guest used a key of the user's gpg-agent", "key", use.Key, "for", use.For)
}
