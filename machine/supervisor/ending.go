package supervisor

import (
	"context"
	"fmt"
	"time"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/qmp"
)

// ending is how a sandbox came to its end.
type ending struct {
	status  machine.Status
	reason  string
	remove  bool
	restart bool // and in place of that, it runs again
	written bool // the guest had written to its disks what it had to write
}

// endingOf says what the end of a guest means that nobody asked for: qemu is how
// QEMU ended, and why the reason that it gave before.
func endingOf(c machine.Config, qemu error, why qmp.ShutdownReason) ending {
	end := ending{status: machine.StatusStopped, remove: c.Remove, restart: c.Restart == machine.RestartAlways}
	switch {
	case qemu != nil:
		end.status, end.reason, end.remove = machine.StatusCrashed, qemu.Error(), false
	case why == qmp.ShutdownPanic:
		end.status, end.reason, end.remove = machine.StatusCrashed, "the guest's kernel panicked: sandbox logs "+c.Name+" shows its last words", false
	case why == qmp.ShutdownReset:
		end.reason, end.written = "the guest rebooted", true
		end.restart = c.Restart != machine.RestartNo
	case why == qmp.ShutdownQuit, why == qmp.ShutdownSignal:
		end.reason, end.restart = fmt.Sprintf("QEMU was told to end (%s)", why), false
	default:
		end.reason, end.written = "the guest powered off", true
	}
	return end
}

// farewell is what QEMU says about its end before it ends.
type farewell struct {
	reason qmp.ShutdownReason
	said   chan struct{} // closed when nothing more is to come
}

// lastWords is how long a kernel that has panicked may write to its console
// before it reboots, which some are told not to do.
const lastWords = 10 * time.Second

// watchEnd keeps what QEMU says about its end.
func (v *supervisor) watchEnd(ctx context.Context) {
	bye, monitor := &farewell{said: make(chan struct{})}, v.monitor
	v.bye = bye
	events, err := monitor.Events(ctx)
	if err != nil { // it has ended already, without a word
		close(bye.said)
		return
	}
	go func() {
		defer close(bye.said)
		for e := range events {
			reason, ok := qmp.ReasonOf(e)
			if !ok || bye.reason == qmp.ShutdownPanic { // after which it reboots
				continue
			}
			bye.reason = reason
			if reason == qmp.ShutdownPanic {
				time.AfterFunc(lastWords, func() { _ = monitor.Quit(ctx) }) // which has mostly ended by then
			}
		}
	}()
}

// lastReason is why a QEMU that is gone has ended, by its own word.
func (v *supervisor) lastReason() qmp.ShutdownReason {
	if v.bye == nil {
		return ""
	}
	<-v.bye.said
	return v.bye.reason
}

// guestEnded is the end of a QEMU that is gone.
func (v *supervisor) guestEnded() ending { return endingOf(v.config, v.vm.Err(), v.lastReason()) }

// wantsEarlyConsole is for a kernel that may end before it has a console, at the
// cost of time. A state that was saved with the device can be loaded with it only.
func (v *supervisor) wantsEarlyConsole(plan *machine.Plan) bool {
	if v.saved != nil {
		return v.saved.Needs.EarlyConsole
	}
	return v.retried && plan.VM.Accel == qemu.AccelTCG
}

// failedByChance tells whether a start that failed is worth another try.
func (v *supervisor) failedByChance() bool {
	return v.standing.Load() || v.vm != nil && v.exited() && byChance(qemu.Accel(v.currentState().Accel), v.vm.Err(), v.lastReason())
}

// byChance tells whether a guest that ended before it was ready may not do so the
// next time: QEMU's emulator loses races of its own on busy machines, and then
// aborts (as with "iotlb_to_section: Assertion"), or the guest computes something
// wrong: its kernel resets the machine before it could say a word, or panics, itself
// or because process 1 did (seen once in several hundred starts). What is wrong with
// the guest or its configuration fails again, and is said then.
func byChance(accel qemu.Accel, end error, why qmp.ShutdownReason) bool {
	return accel == qemu.AccelTCG && (qemu.Aborted(end) || end == nil && (why == qmp.ShutdownReset || why == qmp.ShutdownPanic))
}
