package supervisor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/qmp"
)

const (
	// balloonPatience is how long a guest may come no nearer to the size that it
	// should have before it is taken for one that cannot. A guest that is in need
	// gives and takes all the time: what goes back for want of memory is asked
	// for again.
	balloonPatience = 10 * time.Second

	// balloonStep is what counts as nearer, in bytes. An emulated guest gives
	// some 500 MiB in a second.
	balloonStep = 16 << 20
)

// resizeMemory returns when the guest has that much memory. When it does not
// come to it, it gets back what it had: one from which the last free page is
// taken as soon as there is one could do little else.
func (v *supervisor) resizeMemory(ctx context.Context, sizeMiB int) error {
	lasting := context.WithoutCancel(ctx)
	listening, stop := context.WithCancel(lasting)
	defer stop()
	events, err := v.monitor.Events(listening)
	if err != nil {
		return err
	}
	before, err := v.monitor.QueryBalloon(ctx)
	if err != nil {
		return err
	}
	target := int64(sizeMiB) << 20
	b := balloon{target: target, grow: before < target, now: v.monitor.QueryBalloon}
	asked := target
	if sizeMiB == v.config.MemoryMiB {
		// All of it: the machine may have a little more than was configured.
		asked, b.grow = math.MaxInt64, true
	}
	if err := v.monitor.Balloon(ctx, asked); err != nil {
		return fmt.Errorf("resizing the memory: %w", err)
	}
	nearest, err := b.follow(ctx, events)
	if err == nil {
		v.log.Info("the guest's memory was resized", "bytes", nearest)
		return nil
	}
	if errors.Is(err, errGivesNoMore) && nearest == before {
		err = errNoBalloon
	}
	err = fmt.Errorf("the guest of %s came from %s to %s of memory and not to %s, and has the former size again: %w",
		v.s.Name, machine.FormatMiB(int(before>>20)), machine.FormatMiB(int(nearest>>20)), machine.FormatMiB(sizeMiB), err)
	if back := v.monitor.Balloon(lasting, before); back != nil {
		return errors.Join(err, back)
	}
	b = balloon{target: before, grow: true, now: v.monitor.QueryBalloon}
	_, back := b.follow(lasting, events)
	return errors.Join(err, back)
}

// balloon watches a guest give or take memory.
type balloon struct {
	target int64 // bytes
	grow   bool  // the guest takes memory
	now    func(context.Context) (bytes int64, err error)
}

// Why a guest does not have the memory that it should.
var (
	errGivesNoMore = errors.New("its programs need the rest; end some of them, or give --memory a larger size")
	errNoBalloon   = errors.New("the driver of its balloon does not answer, which an old image lacks: build the image anew (sandbox image build) and make a new sandbox from it")
)

// follow returns how much memory the guest has when that is enough, or the
// nearest to it that it has had when it comes no nearer.
func (b balloon) follow(ctx context.Context, events <-chan qmp.Event) (nearest int64, err error) {
	var timer *time.Timer
	var mark int64
	for {
		bytes, err := b.now(ctx)
		if err != nil || b.missing(bytes) <= 0 {
			return bytes, err
		}
		if timer == nil {
			timer = time.NewTimer(balloonPatience)
			defer timer.Stop()
			nearest, mark = bytes, bytes
		}
		if b.missing(bytes) < b.missing(nearest) {
			nearest = bytes
		}
		if b.missing(nearest) <= b.missing(mark)-balloonStep {
			mark = nearest
			timer.Reset(balloonPatience)
		}
		if err := b.await(ctx, events, timer.C); err != nil {
			return nearest, err
		}
	}
}

// missing is how much the guest has still to give or take.
func (b balloon) missing(bytes int64) int64 {
	if b.grow {
		return b.target - bytes
	}
	return bytes - b.target
}

// await returns when the guest has given or taken some memory.
func (b balloon) await(ctx context.Context, events <-chan qmp.Event, late <-chan time.Time) error {
	for {
		select {
		case e, ok := <-events:
			switch {
			case !ok:
				return errors.New("QEMU has ended")
			case e.Event == "BALLOON_CHANGE":
				return nil
			}
		case <-late:
			if b.grow {
				return errNoBalloon
			}
			return errGivesNoMore
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
