package supervisor

import (
	"context"
	"io"
	"net"
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
	ask := func(ctx context.Context, use gpgagent.Use) error {
		return v.askForKey(ctx, v.config.GPGAgentAsk, machine.Question{Key: use.Key, For: use.For})
	}
	used := func(use gpgagent.Use) { v.keyUsed("gpg-agent", use.Key, use.For, use.Err) }
	prompt := "The sandbox " + v.config.Name + " asks for an OpenPGP signature."
	lender := gpgagent.NewLender(dial, v.config.GPGAgentKeys, prompt, ask, used)
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
