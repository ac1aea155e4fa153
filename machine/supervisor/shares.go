package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sourcery-zone/sandbox/internal/hostdir"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/virtiofs"
	"github.com/sourcery-zone/sandbox/virtiofs/gate"
	"github.com/sourcery-zone/sandbox/virtiofs/watch"
)

// deadShareError says that the guest has lost a share. It cannot be saved:
// requests to a dead virtiofsd block it for ever, and no later one can be
// attached.
type deadShareError struct{ server fileServer }

func (e *deadShareError) Error() string {
	err := e.server.Err()
	if err == nil {
		err = errors.New("it ended without an error")
	}
	return fmt.Sprintf("the file server of a share died: %v", err)
}

// sharesDied returns a channel that gets the first file server that ends while the
// guest has what it serves.
func (v *supervisor) sharesDied() <-chan fileServer { return v.deaths.tell() }

// How much later than its file servers, which end when it disconnects, QEMU may
// be seen to end. A server that says that it was left is believed for as long as
// a busy host may take to free the guest's memory; one that was killed says
// nothing.
const (
	followGrace = time.Second
	leaveGrace  = 20 * time.Second
)

// graceAfter is the grace after a file server ended by itself (nil) or otherwise.
func graceAfter(end error) time.Duration {
	if end == nil {
		return leaveGrace
	}
	return followGrace
}

// followsGuest tells whether a file server has ended because the guest did.
func (v *supervisor) followsGuest(server fileServer) bool {
	select {
	case <-v.vm.Done():
		return true
	case <-time.After(graceAfter(server.Err())):
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
			case <-time.After(graceAfter(server.Err())):
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
	own    bool   // its home: a directory of the sandbox, and no share
	tag    string // by which the guest knows it
	port   int    // of the machine, in which its device is; 0: none
	socket string // on which it is served
}

// device is what the guest sees of it.
func (e export) device() qemu.Share { return qemu.Share{Tag: e.tag, Socket: e.socket, Port: e.port} }

// fileServer serves an export.
type fileServer struct {
	*virtiofs.Server
	export  export
	changes *watch.Tree // by this machine; nil unless the guest is told of them
}

// Stop ends it, as virtiofs.Server.Stop does.
func (s fileServer) Stop(ctx context.Context) error {
	s.changes.Close()
	return s.Server.Stop(ctx)
}

// exports lists what the guest mounts, in that order: its home, unless it has
// none here, and the shares.
func (v *supervisor) exports(plan *machine.Plan) []export {
	home := export{Share: virtiofs.Share{Source: v.s.Files().Home(), Target: plan.Image.Manifest.User.Home}, own: true}
	var list []export
	for _, share := range plan.Shares {
		list = append(list, export{Share: share})
	}
	if v.config.Template { // an empty directory in every place
		list = slices.Repeat([]export{home}, v.config.TemplateShares)
	}
	for i, place := range v.needs.Places {
		list[i].tag, list[i].port = place.Tag, place.Port
	}
	if !v.config.NoHome {
		home.tag, home.Quota = machine.HomeTag, int64(v.config.HomeQuotaMiB)<<20
		list = append([]export{home}, list...)
	}
	for i := range list {
		list[i].socket = v.s.Files().Share(list[i].tag)
	}
	return list
}

// startShares starts a file server for the home and one for each share.
func (v *supervisor) startShares(ctx context.Context, plan *machine.Plan) error {
	log, err := newLogFile(v.s.Files().Log(layout.VirtiofsdLog))
	if err != nil {
		return err
	}
	if v.audit == nil {
		record, err := newLogFile(v.s.Files().Log(layout.AuditLog))
		if err != nil {
			return err
		}
		v.audit = newAuditor(record, v.log, func(refusals []machine.Refusal) error {
			return v.setState(func(st *machine.State) { st.Refusals = refusals })
		})
	}
	v.shareLog = log
	exports := v.exports(plan)
	v.servers = make([]fileServer, len(exports))
	var group errgroup.Group
	// The servers live longer than the start, whose end cancels ctx.
	ctx = context.WithoutCancel(ctx)
	for i, dir := range exports {
		group.Go(func() (err error) {
			v.servers[i], err = v.startShare(ctx, plan, dir, log)
			return err
		})
	}
	err = group.Wait()
	v.servers = slices.DeleteFunc(v.servers, func(s fileServer) bool { return s.Server == nil })
	if err != nil {
		return err
	}
	v.deaths = watchDeaths(v.servers)
	return v.showShares()
}

// startShare opens a directory, which is judged as it is in this moment, and
// starts a file server that serves it and nothing that takes its place.
func (v *supervisor) startShare(ctx context.Context, plan *machine.Plan, e export, log io.Writer) (_ fileServer, err error) {
	none := fileServer{}
	open := func() (*hostdir.Dir, error) { return v.host.OpenShare(v.s.Name, e.Share) }
	if e.own {
		open = v.openHome
	}
	dir, err := open()
	if err != nil {
		return none, err
	}
	defer dir.Close()
	uid, gid, groups, err := virtiofs.Owner(dir)
	if err != nil {
		return none, err
	}
	judge, err := judgeOf(e, dir)
	if err != nil {
		return none, fmt.Errorf("sharing %s: %w", e.Source, err)
	}
	judged := v.judged(e)
	var changes *watch.Tree
	if e.Watch {
		if changes, err = watch.Open(dir); err != nil {
			return none, err
		}
		defer func() {
			if err != nil {
				changes.Close()
			}
		}()
		note := judged
		judged = func(ev gate.Event) {
			changes.GuestDoes(ev)
			note(ev)
		}
	}
	server, err := plan.Virtiofsd.Start(ctx, virtiofs.ServerConfig{
		Directory: dir, Socket: e.socket, ReadOnly: e.ReadOnly, Lower: e.CopyOnWrite, Log: log,
		GuestUID: plan.Image.Manifest.User.UID, GuestGID: plan.Image.Manifest.User.GID,
		HostUID: uid, HostGID: gid, HostGroups: groups, AllowUnconfined: v.config.AllowWeak,
		Judge: judge, Judged: judged, Quota: e.Quota, Touches: e.Watch,
	})
	if _, ok := errors.AsType[*virtiofs.GateError](err); ok {
		switch {
		case judge != nil:
		case e.Quota > 0:
			return none, fmt.Errorf("no quota can be kept for %s, so leave it out: %w", e.Source, err)
		default:
			return none, fmt.Errorf("programs in the guest cannot be told of changes in %s, so leave out watch: %w", e.Source, err)
		}
		return none, remedy.Add(fmt.Errorf("sharing %s: %w", e.Source, err), remedy.ShareWithoutRules)
	}
	if unconfined, ok := errors.AsType[*virtiofs.UnconfinedError](err); ok {
		return none, fmt.Errorf("sharing %s: %w\nsandbox doctor tells what to do about that; a sandbox that is made with --allow-weak-isolation runs all the same", e.Source, unconfined)
	}
	if err != nil {
		return none, fmt.Errorf("sharing %s: %w", e.Source, machine.ExplainShare(v.s.Name, err))
	}
	return fileServer{server, e, changes}, nil
}

// judged returns who notes what is done to an export. What is done in the home, where all is the guest's own, is noted
// when its quota is against it.
func (v *supervisor) judged(e export) func(gate.Event) {
	note := v.audit.of(e.Source)
	if !e.own {
		return note
	}
	return func(ev gate.Event) {
		if ev.Refused != "" {
			note(ev)
		}
	}
}

// judgeOf returns who judges what the guest does to an export, or nil where nobody needs to.
func judgeOf(e export, dir *hostdir.Dir) (gate.Judge, error) {
	if none := e.Rules.None && len(e.Rules.Refuse) == 0 && len(e.Rules.Hide) == 0; e.own || none {
		return nil, nil
	}
	set, err := e.Judge(dir)
	if err != nil || e.ReadOnly && !set.Hides() {
		return nil, err
	}
	return set, nil
}

// showShares notes how each directory is kept apart from the rest of the host.
func (v *supervisor) showShares() error {
	var shown []machine.ServedShare
	for _, server := range v.servers {
		shown = append(shown, server.shown())
	}
	if i := slices.IndexFunc(shown, func(s machine.ServedShare) bool { return s.Weak }); i >= 0 {
		v.report(api.Report{Note: weakNote(shown[i])})
	}
	return v.setState(func(st *machine.State) { st.Shares = shown })
}

func (s fileServer) shown() machine.ServedShare {
	return machine.ServedShare{Source: s.export.Source, Target: s.export.Target, Tag: s.export.tag, File: s.export.File, Isolation: s.Isolation(), Weak: !s.Confined()}
}

func weakNote(s machine.ServedShare) string {
	return fmt.Sprintf("this machine offers no sandbox for virtiofsd: a guest that takes it over has all files that you have (--allow-weak-isolation was given; isolation of %s: %s)", s.Source, s.Isolation)
}
