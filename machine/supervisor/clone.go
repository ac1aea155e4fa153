package supervisor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/machine"
)

// prepareClone is run by root at each start. It gives git settings for the origin, whose own the host does not let anybody
// read, lets every user work in the clone, and puts a directory of the guest's own disk in the clone's place, which may be
// in a home that the host serves. No link is followed: the guest's user may have made it.
const prepareClone = `set -e
origin=$1 clone=$2 disk=/var/lib/sandbox/clones/$3 owner=$4
settings=/etc/gitconfig
if [ -L "$settings" ]; then settings=/run/sandbox-agent.gitconfig; fi # made anew by the system; the other is the agent's
git config --file "$settings" --get-all safe.directory | grep -qxF "$clone" ||
	git config --file "$settings" --add safe.directory "$clone"
if mountpoint -q "$clone"; then exit 0; fi
if [ "$(readlink -m "$clone")" != "$clone" ]; then echo "a symbolic link leads to $clone" >&2; exit 1; fi
mkdir -p "$clone" "$disk"
chown "$owner" "$disk"
printf '[core]\n\tbare = true\n' >/run/sandbox-origin.config
mount --bind /run/sandbox-origin.config "$origin/config"
mount --bind "$disk" "$clone"
`

// makeClone is run by the guest's user at each start, and does something at the first. Objects are copied as they are,
// which is quick, and nothing of them is borrowed: where the origin borrows, git has to pack them. One that was interrupted begins anew: until all is checked out, a
// directory is there that git clone has worked in.
const makeClone = `set -e
origin=$1 head=$2
cd "$3"
if [ -e .git-clone ] || [ -z "$(ls -A)" ]; then
	if [ ! -e .git ]; then
		rm -rf .git-clone
		copy=
		if [ -e "$origin/objects/info/alternates" ]; then copy=--no-local; fi
		git clone --quiet --no-checkout $copy "$origin" .git-clone
		mv .git-clone/.git .git
	fi
	if [ -n "$(git rev-list --max-count=1 --all)" ]; then
		rm -f .git/index .git/index.lock
		git checkout --quiet --force "$head" --
	fi
	rmdir .git-clone
fi
`

// makeClones gives the guest the clones that it is to have and does not have yet.
func (v *supervisor) makeClones(ctx context.Context, plan *machine.Plan) error {
	user := plan.Image.Manifest.User
	for _, share := range plan.Shares {
		if share.Clone == "" || v.config.Template {
			continue
		}
		sum := sha256.Sum256([]byte(share.Target))
		name, owner := hex.EncodeToString(sum[:16]), fmt.Sprintf("%d:%d", user.UID, user.GID)
		err := v.runInGuest(ctx, "root", prepareClone, share.MountPoint(), share.Target, name, owner)
		if err == nil {
			err = v.runInGuest(ctx, "", makeClone, share.MountPoint(), share.Clone, share.Target)
		}
		if err != nil {
			return fmt.Errorf("cloning %s in the guest: %w", share.Source, err)
		}
	}
	return nil
}

// listTips is run by the guest's user before it stops: see machine.State.Clones.
const listTips = `cd "$1" && git for-each-ref --format='%(objectname)' refs/heads refs/stash && { git rev-parse --verify --quiet HEAD || :; }`

const (
	// maxTips bounds, in bytes, what a guest says of a clone: a thousand branches. Of one with more, nothing is known.
	maxTips = 64 << 10

	// tipsPatience is for an emulated guest on a busy host.
	tipsPatience = 10 * time.Second
)

// noteClones notes which commits the guest's clones have, for whoever wants to remove the sandbox later.
func (v *supervisor) noteClones(ctx context.Context) {
	if v.plan == nil || v.agentClient() == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tipsPatience)
	defer cancel()
	clones := map[string][]string{}
	for _, share := range v.plan.Shares {
		if share.Clone == "" {
			continue
		}
		said := limitedBuffer{new(bytes.Buffer), maxTips}
		if err := v.runWithOutput(ctx, "", &said, listTips, share.Target); err != nil || said.Len() == maxTips {
			v.log.Warn("it is not known which commits a clone has", "clone", share.Target, "err", err)
			continue
		}
		clones[share.Target] = strings.Fields(said.String())
	}
	if len(clones) > 0 {
		_ = v.setState(func(st *machine.State) { st.Clones = clones })
	}
}

// runInGuest runs a script of the shell. What it complains of is in the error.
func (v *supervisor) runInGuest(ctx context.Context, user, script string, args ...string) error {
	return v.runWithOutput(ctx, user, nil, script, args...)
}

func (v *supervisor) runWithOutput(ctx context.Context, user string, output io.Writer, script string, args ...string) error {
	cmd := v.agentClient().Command(ctx, append([]string{"sh", "-c", script, "sh"}, args...)...)
	complaints := limitedBuffer{new(bytes.Buffer), 4 << 10}
	cmd.User, cmd.Stderr, cmd.Stdout = user, &complaints, output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(complaints.String()))
	}
	return nil
}

// limitedBuffer keeps the beginning of what a guest says.
type limitedBuffer struct {
	*bytes.Buffer
	most int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), max(0, b.most-b.Len()))])
	return len(p), nil
}
