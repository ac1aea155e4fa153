package machine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sourcery-zone/sandbox/virtiofs"
)

// deadShareError says that the guest has lost a share. It cannot be saved:
// requests to a dead virtiofsd block it for ever, and no later one can be
// attached.
type deadShareError struct{ server *virtiofs.Server }

func (e *deadShareError) Error() string {
	err := e.server.Err()
	if err == nil {
		err = errors.New("it ended without an error")
	}
	return fmt.Sprintf("the file server of a share died: %v", err)
}

// sharesDied returns a channel that gets each file server that ends.
func (v *supervisor) sharesDied() <-chan *virtiofs.Server {
	died := make(chan *virtiofs.Server, len(v.servers))
	for _, server := range v.servers {
		go func() {
			<-server.Done()
			died <- server
		}()
	}
	return died
}

// How much later than its file servers, which end when it disconnects, QEMU may
// be seen to end. A server that says that it was left is believed for as long as
// a busy host may take to free the guest's memory; one that was killed says
// nothing.
const (
	followGrace = time.Second
	leaveGrace  = 20 * time.Second
)

func graceAfter(server *virtiofs.Server) time.Duration {
	if server.Err() == nil {
		return leaveGrace
	}
	return followGrace
}

// followsGuest tells whether a file server has ended because the guest did.
func (v *supervisor) followsGuest(server *virtiofs.Server) bool {
	select {
	case <-v.vm.Done():
		return true
	case <-time.After(graceAfter(server)):
		return false
	}
}

// cancelWhenShareDies ends a start that can only wait in vain. The caller
// calls the returned function when the start is over.
func (v *supervisor) cancelWhenShareDies(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	died := v.sharesDied()
	go func() {
		select {
		case server := <-died:
			// A QEMU that has ended says better what went wrong.
			select {
			case <-ctx.Done():
			case <-time.After(graceAfter(server)):
				cancel(&deadShareError{server})
			}
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// export is a directory of this machine that the guest mounts.
type export struct {
	virtiofs.Share
	tag    string // by which the guest knows it
	socket string // on which it is served
}

// exports lists what the guest mounts, in that order: its home, unless it has
// none here, and the shares.
func (v *supervisor) exports(plan *Plan) []export {
	dirs := plan.Shares
	if v.config.Template { // an empty directory in every place
		dirs = slices.Repeat([]virtiofs.Share{{Source: v.s.HomePath()}}, v.config.TemplateShares)
	}
	tags := v.config.tags(len(dirs))
	if !v.config.NoHome {
		dirs = append([]virtiofs.Share{{Source: v.s.HomePath(), Target: plan.Image.Manifest.User.Home}}, dirs...)
	}
	var list []export
	for i, dir := range dirs {
		list = append(list, export{dir, tags[i], v.s.fsSocket(i)})
	}
	return list
}

// tags are by what a guest knows its home, unless it has none of the host, and
// that number of shares.
func (c Config) tags(shares int) []string {
	var tags []string
	if !c.NoHome {
		tags = append(tags, "home")
	}
	for i := range shares {
		tags = append(tags, fmt.Sprintf("share%d", i))
	}
	return tags
}

// startShares starts a file server for the home and one for each share.
func (v *supervisor) startShares(ctx context.Context, plan *Plan) error {
	log, err := newLogFile(v.s.LogPath(VirtiofsdLog))
	if err != nil {
		return err
	}
	exports := v.exports(plan)
	v.servers = make([]*virtiofs.Server, len(exports))
	var group errgroup.Group
	// The servers live longer than the start, whose end cancels ctx.
	ctx = context.WithoutCancel(ctx)
	for i, dir := range exports {
		group.Go(func() error {
			uid, gid, err := dir.Owner()
			if err != nil {
				return err
			}
			server, err := plan.Virtiofsd.Start(ctx, virtiofs.ServerConfig{
				Source: dir.Source, Socket: dir.socket, ReadOnly: dir.ReadOnly, Log: log,
				GuestUID: plan.Image.Manifest.User.UID, GuestGID: plan.Image.Manifest.User.GID,
				HostUID: uid, HostGID: gid,
			})
			if err != nil {
				return fmt.Errorf("sharing %s: %w", dir.Source, err)
			}
			v.servers[i] = server
			return nil
		})
	}
	err = group.Wait()
	v.servers = slices.DeleteFunc(v.servers, func(s *virtiofs.Server) bool { return s == nil })
	return err
}
