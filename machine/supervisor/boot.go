package supervisor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/qmp"
)

// boot starts every process and waits until commands can run in the guest.
// What it started is in v also when it fails: teardown ends it.
func (v *supervisor) boot(ctx context.Context) error {
	img, err := v.host.Image(v.config.Image)
	if err != nil {
		return err
	}
	if v.config, err = v.s.RecordShares(v.config); err != nil {
		return err
	}
	plan, err := v.host.Plan(ctx, v.config, img)
	if err != nil {
		return err
	}
	for _, note := range plan.Notes {
		v.report(api.Report{Note: note})
	}
	v.noteOtherWriters()
	if v.needs, err = plan.Needs(); err != nil {
		return err
	}
	v.needs.EarlyConsole = v.wantsEarlyConsole(plan)
	if err := v.placeShares(plan); err != nil {
		return err
	}
	v.plan = plan
	if v.console, err = newLogFile(v.s.Files().Log(layout.ConsoleLog)); err != nil {
		return err
	}
	if err := v.readyQEMU(ctx, plan); err != nil {
		return err
	}
	v.certificates = plan.HostCA
	v.sweepLeftovers() // before anything writes its own
	// It takes as long as the shares, and neither has to do with the other.
	var network errgroup.Group
	network.Go(func() error { return v.startNetwork(ctx) })
	defer network.Wait() // also after a failure, so that teardown finds all of it
	if err := v.restoreHome(ctx); err != nil {
		return err
	}
	if err := v.startShares(ctx, plan); err != nil {
		return err
	}
	v.reach(machine.StageShares, nil)
	if v.config.Asks() {
		go v.notifyDesktop()
	}
	changes, err := v.prepareDisks(ctx, plan)
	if err != nil {
		return err
	}
	if err := network.Wait(); err != nil {
		return err
	}
	agentConn, err := v.startGuest(ctx, plan)
	if err != nil {
		return err
	}
	if err := v.changeDisks(ctx, changes); err != nil {
		return err
	}
	ctx, unwatch := v.cancelWhenShareDies(ctx)
	defer unwatch()
	deadline, cancel := context.WithTimeoutCause(ctx, v.config.ReadyTimeout, errNotReady)
	defer cancel()
	go v.cancelWhenDead(deadline, cancel)
	if plan.VM.Accel == qemu.AccelTCG && v.saved == nil && !v.retried {
		go v.cancelWhenStanding(deadline, cancel)
	}
	if v.saved != nil {
		if err := v.loadSaved(deadline); err != nil {
			return v.explainNotRestored(deadline, err)
		}
	}
	if err := v.connectAgent(deadline, plan, agentConn); err != nil {
		return v.explainNotReady(deadline, err)
	}
	if err := v.makeClones(ctx, plan); err != nil { // which takes as long as it takes
		return err
	}
	if err := v.tellGuest(deadline); err != nil {
		return v.explainNotReady(deadline, err)
	}
	v.reach(machine.StageAgent, func(st *machine.State) { st.Status = machine.StatusRunning })
	go v.awaitSystem(context.WithoutCancel(ctx))
	go v.keepAgent(context.WithoutCancel(ctx))
	go v.watchShares()
	go v.forgetFiles(context.WithoutCancel(ctx))
	go v.keepClock(context.WithoutCancel(ctx))
	go v.watchPorts(context.WithoutCancel(ctx))
	return nil
}

var errNotReady = errors.New("not ready in time")

// cancelWhenDead ends the wait for a guest that is gone.
func (v *supervisor) cancelWhenDead(ctx context.Context, cancel context.CancelFunc) {
	select {
	case <-v.vm.Done():
		cancel()
	case <-ctx.Done():
	}
}

// cancelWhenStanding ends the wait for a guest of which a processor stands still: once in some hundred boots on a busy machine,
// QEMU's emulator leaves one without its timer, and nothing in the guest goes on that waits for that. Its kernel notices after
// twenty seconds. On a machine that is as slow as that, another start is no loss.
func (v *supervisor) cancelWhenStanding(ctx context.Context, cancel context.CancelFunc) {
	said, w := io.Pipe()
	go func() { w.CloseWithError(v.console.Follow(ctx, w)) }()
	defer said.Close()
	for lines := bufio.NewScanner(said); lines.Scan(); {
		if strings.Contains(lines.Text(), standsStill) {
			v.log.Warn("a processor of the guest stands still", "kernel", lines.Text())
			v.standing.Store(true)
			cancel()
			return
		}
	}
}

// standsStill is what Linux says of a processor on which no timer has woken a thread that it waits for (kernel/rcu/tree_stall.h).
const standsStill = "kthread timer wakeup didn't happen for"

// explainNotReady says why the guest did not become ready, with what it last
// wrote to its console.
func (v *supervisor) explainNotReady(ctx context.Context, err error) error {
	what := fmt.Sprintf("the guest's agent could not be reached: %v", err)
	if ctx.Err() == nil {
		// A QEMU that dies closes its sockets before its end is known.
		<-exitedWithin(v.vm.Done(), time.Second)
	}
	guest := true
	var dead *deadShareError
	switch {
	case errors.As(context.Cause(ctx), &dead):
		return dead
	case context.Cause(ctx) == errNotReady:
		what = fmt.Sprintf("the guest was not ready after %v (--timeout)", v.config.ReadyTimeout)
	case v.exited() && v.vm.Err() != nil:
		what, guest = "QEMU ended: "+v.vm.Err().Error(), false
	case v.exited():
		what = endedEarly(v.lastReason())
	}
	path := v.s.Files().Log(layout.ConsoleLog)
	lines, _ := consoleEnd(path, 12) // without them, the message is still true
	message := fmt.Sprintf("%s; its console (%s) is empty", what, path)
	if lines != "" {
		message = fmt.Sprintf("%s\nThe last lines of its console (all of it: %s):\n%s", what, path, lines)
	}
	if guest {
		return &api.Error{Code: api.CodeGuest, Message: message}
	}
	return errors.New(message)
}

// endedEarly says what a guest did that never became ready.
func endedEarly(why qmp.ShutdownReason) string {
	switch why {
	case qmp.ShutdownPanic:
		return "the guest's kernel panicked before it was ready"
	case qmp.ShutdownReset:
		return "the guest's kernel reset the machine before it was ready, as it does when it cannot go on"
	}
	return "the guest powered off before it was ready"
}

func (v *supervisor) exited() bool {
	select {
	case <-v.vm.Done():
		return true
	default:
		return false
	}
}
