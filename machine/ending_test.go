package machine

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/qmp"
)

func TestEndOfAGuestIsTakenForWhatItIs(t *testing.T) {
	aborted := errors.New("qemu ended with signal: aborted; iotlb_to_section: Assertion failed")
	for _, tt := range []struct {
		what   string
		qemu   error
		why    qmp.ShutdownReason
		status Status
		reason string
		again  string // the policies with which it runs again
	}{
		{"power-off", nil, qmp.ShutdownGuest, StatusStopped, "powered off", "always"},
		{"reboot", nil, qmp.ShutdownReset, StatusStopped, "rebooted", "default on-reboot always"},
		{"panic", nil, qmp.ShutdownPanic, StatusCrashed, "kernel panicked: sandbox logs a", "always"},
		{"QEMU's abort", aborted, "", StatusCrashed, "Assertion", "always"},
		{"quit by a monitor", nil, qmp.ShutdownQuit, StatusStopped, "told to end", ""},
		{"a signal", nil, qmp.ShutdownSignal, StatusStopped, "told to end", ""},
		{"an end without a word", nil, "", StatusStopped, "powered off", "always"},
	} {
		for _, policy := range []RestartPolicy{"", RestartNo, RestartOnReboot, RestartAlways} {
			c := testConfig("a")
			c.Remove, c.Restart = policy != RestartAlways, policy
			end := endingOf(c, tt.qemu, tt.why)
			if end.status != tt.status || !strings.Contains(end.reason, tt.reason) {
				t.Errorf("%s: %+v, want %s because %q", tt.what, end, tt.status, tt.reason)
			}
			policy := cmp.Or(string(policy), "default")
			if again := slices.Contains(strings.Fields(tt.again), policy); end.restart != again {
				t.Errorf("%s with --restart %s: runs again: %t, want %t", tt.what, policy, end.restart, again)
			}
			if end.remove != (c.Remove && tt.status == StatusStopped) {
				t.Errorf("%s: removed: %t; what crashed is kept to be looked at, and the rest as --rm says", tt.what, end.remove)
			}
		}
	}
}

func TestRestartPoliciesAreChecked(t *testing.T) {
	if _, err := ParseRestart("on-failure"); err == nil || !strings.Contains(err.Error(), "on-reboot") {
		t.Errorf("an unknown one: %v", err)
	}
	c := testConfig("a")
	c.Remove, c.Restart = true, RestartAlways
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "--rm") {
		t.Errorf("removed and always run again: %v", err)
	}
}
