package supervisor

import (
	"cmp"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/internal/process"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/qmp"
)

func TestEndOfAGuestIsTakenForWhatItIs(t *testing.T) {
	aborted := errors.New("qemu ended with signal: aborted; iotlb_to_section: Assertion failed")
	for _, tt := range []struct {
		what   string
		qemu   error
		why    qmp.ShutdownReason
		status machine.Status
		reason string
		again  string // the policies with which it runs again
	}{
		{"power-off", nil, qmp.ShutdownGuest, machine.StatusStopped, "powered off", "always"},
		{"reboot", nil, qmp.ShutdownReset, machine.StatusStopped, "rebooted", "default on-reboot always"},
		{"panic", nil, qmp.ShutdownPanic, machine.StatusCrashed, "kernel panicked: sandbox logs a", "always"},
		{"QEMU's abort", aborted, "", machine.StatusCrashed, "Assertion", "always"},
		{"quit by a monitor", nil, qmp.ShutdownQuit, machine.StatusStopped, "told to end", ""},
		{"a signal", nil, qmp.ShutdownSignal, machine.StatusStopped, "told to end", ""},
		{"an end without a word", nil, "", machine.StatusStopped, "powered off", "always"},
	} {
		for _, policy := range []machine.RestartPolicy{"", machine.RestartNo, machine.RestartOnReboot, machine.RestartAlways} {
			c := testConfig("a")
			c.Remove, c.Restart = policy != machine.RestartAlways, policy
			end := endingOf(c, tt.qemu, tt.why)
			if end.status != tt.status || !strings.Contains(end.reason, tt.reason) {
				t.Errorf("%s: %+v, want %s because %q", tt.what, end, tt.status, tt.reason)
			}
			policy := cmp.Or(string(policy), "default")
			if again := slices.Contains(strings.Fields(tt.again), policy); end.restart != again {
				t.Errorf("%s with --restart %s: runs again: %t, want %t", tt.what, policy, end.restart, again)
			}
			if end.remove != (c.Remove && tt.status == machine.StatusStopped) {
				t.Errorf("%s: removed: %t; what crashed is kept to be looked at, and the rest as --rm says", tt.what, end.remove)
			}
		}
	}
}

func TestRestartPoliciesAreChecked(t *testing.T) {
	if _, err := machine.ParseRestart("on-failure"); err == nil || !strings.Contains(err.Error(), "on-reboot") {
		t.Errorf("an unknown one: %v", err)
	}
	c := testConfig("a")
	c.Remove, c.Restart = true, machine.RestartAlways
	if err := c.Validate(); err == nil || !strings.Contains(fmt.Sprint(err, remedy.Of(err)), "[remove-or-rerun]") {
		t.Errorf("removed and always run again: %v", err)
	}
}

// ended returns how a program ended that does what the shell's script says.
func ended(t *testing.T, script string) error {
	t.Helper()
	p, err := process.Start(exec.Command("/bin/sh", "-c", script), process.Options{Name: "qemu"})
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	return p.Err()
}

func TestOnlyAStartThatFailedByChanceIsMadeAgain(t *testing.T) {
	for _, tt := range []struct {
		what, script string
		accel        qemu.Accel
		why          qmp.ShutdownReason
		again        bool
	}{
		{"an assertion of the emulator", "kill -ABRT $$", qemu.AccelTCG, "", true},
		{"a fault of the emulator", "kill -SEGV $$", qemu.AccelTCG, "", true},
		{"a reset", "", qemu.AccelTCG, qmp.ShutdownReset, true},
		{"a panic", "", qemu.AccelTCG, qmp.ShutdownPanic, true},
		{"a panic under KVM", "", qemu.AccelKVM, qmp.ShutdownPanic, false},
		{"a power-off", "", qemu.AccelTCG, qmp.ShutdownGuest, false},
		{"a configuration that QEMU refuses", "exit 1", qemu.AccelTCG, "", false},
		{"somebody's kill, or the kernel's for want of memory", "kill -KILL $$", qemu.AccelTCG, "", false},
		{"an assertion under KVM", "kill -ABRT $$", qemu.AccelKVM, "", false},
	} {
		if got := byChance(tt.accel, ended(t, tt.script), tt.why); got != tt.again {
			t.Errorf("%s: tried again: %t, want %t", tt.what, got, tt.again)
		}
	}
	if create(t).failedByChance() {
		t.Error("a start that did not get as far as QEMU is tried again")
	}
}
