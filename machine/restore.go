package machine

import (
	"context"
	"errors"
	"fmt"

	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/snapshot"
)

// Restore gives the sandbox the state of a snapshot: what its guest has done
// since, in memory and on its disk, is gone. A running sandbox is ended for
// that, once it is sure that the snapshot is intact and fits. With withHome, the
// home becomes what it was, too, if the snapshot has it. The rest is as with
// Start.
func (s *Sandbox) Restore(ctx context.Context, tag string, withHome bool, o StartOptions) (*Hold, error) {
	snap, err := s.Snapshot(tag)
	if err != nil {
		return nil, err
	}
	if withHome && snap.Home == nil {
		return nil, remedy.Add(fmt.Errorf("the snapshot %s has no home", tag), remedy.SaveWithHome, s.Name)
	}
	if err := s.checkFits(ctx, snap); err != nil {
		return nil, err
	}
	if err := s.VerifySnapshot(ctx, snap); err != nil {
		return nil, err
	}
	if o.Secrets == nil { // before anything ends
		if o.Secrets, err = s.Secrets(ctx); err != nil {
			return nil, err
		}
	}
	// Who applies would note what the guest of the snapshot has not seen.
	lock, err := s.LockWorkspaces()
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := s.makeWay(ctx); err != nil {
		return nil, fmt.Errorf("the sandbox %s could not be ended, so its snapshot was not restored: %w", s.Name, err)
	}
	o.restore, o.withHome = s.Files().Snapshot(tag), withHome
	return s.Start(ctx, o)
}

// makeWay ends the sandbox, also one that is to be removed when it stops, but
// does not remove it.
func (s *Sandbox) makeWay(ctx context.Context) error {
	if !s.held() {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, endPatience, errNoEnd)
	defer cancel()
	return s.askForEnd(ctx, func(ctx context.Context) error { return s.api().Kill(ctx, api.KillRequest{Restoring: true}) })
}

// checkFits compares what the snapshot needs with what there is.
func (s *Sandbox) checkFits(ctx context.Context, snap snapshot.Manifest) error {
	c, err := s.Config()
	if err != nil {
		return err
	}
	img, err := s.host.Image(c.Image)
	if err != nil {
		return err
	}
	plan, err := s.host.Plan(ctx, c, img)
	if err != nil {
		return err
	}
	return plan.Fits(snap)
}

func (p *Plan) Fits(snap snapshot.Manifest) error {
	here, err := p.Needs()
	if err != nil {
		return err
	}
	differences := snap.Needs.Differences(here)
	if len(differences) == 0 {
		return nil
	}
	text := fmt.Sprintf("the snapshot %s cannot be restored here:", snap.Tag)
	var memory, host bool
	for _, d := range differences {
		text += fmt.Sprintf("\n  %s: %s", d, differenceRemedy(d.Property, snap.Needs))
		memory = memory || d.Property == snapshot.PropertyMemory
		host = host || d.Property == snapshot.PropertyAccel || d.Property == snapshot.PropertyTransport
	}
	err = errors.New(text)
	if memory {
		err = remedy.Add(err, remedy.ResizeMemory, p.VM.Name, FormatMiB(snap.Needs.MemoryMiB))
	}
	if host {
		err = remedy.Add(err, remedy.Examine)
	}
	return err
}

// differenceRemedy is what to do about a machine that is not what a snapshot needs.
func differenceRemedy(p snapshot.Property, needed snapshot.Needs) string {
	switch p {
	case snapshot.PropertyQEMU:
		return "install that version, or save a new snapshot"
	case snapshot.PropertyMachine:
		return "start the sandbox where KVM is as it was then"
	case snapshot.PropertyAccel:
		return "KVM must be usable exactly if it was then"
	case snapshot.PropertyCPU:
		return "restore on a machine of the same kind"
	case snapshot.PropertyMemory:
		return fmt.Sprintf("stop the sandbox and give it %s, as it had", FormatMiB(needed.MemoryMiB))
	case snapshot.PropertyShares:
		return "mount and unmount what differs"
	case snapshot.PropertyTransport:
		return "vsock must be usable exactly if it was then"
	}
	return "the sandbox was changed since, and must be as it was"
}
