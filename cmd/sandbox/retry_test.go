package main

import (
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/machine"
)

// TestStartIsTriedOnceMore crashes QEMU as its emulator does by itself now and then on a busy machine: nobody hears of it
// unless it does so again.
func TestStartIsTriedOnceMore(t *testing.T) {
	f := newFaults(t)
	start := f.background(t, "run", "-d", "--name", f.name)
	first := f.crash(t, 0)
	if accel := f.sandbox(t).State().Accel; accel != "tcg" {
		t.Skipf("the accelerator %s does not lose such races: run the test where KVM is not usable", accel)
	}
	if err := start.wait(); err != nil || strings.Contains(start.text(), "signal") {
		t.Fatalf("the start was not tried once more, or the user hears of it: %v\n%s", err, start.text())
	}
	if st := f.sandbox(t).State(); st.QEMU == first || st.Status != machine.StatusRunning {
		t.Errorf("the sandbox is %+v", st)
	}
	// So that the next one to fail says more.
	f.ok(t, "exec", f.name, "--", "grep", "-E", "earlyprintk|earlycon", "/proc/cmdline")
	f.ok(t, "stop", f.name)

	start = f.background(t, "start", f.name)
	f.crash(t, f.crash(t, 0))
	if err := start.wait(); err == nil || !strings.Contains(start.text(), "QEMU ended") {
		t.Errorf("after two crashes: %v\n%s", err, start.text())
	}
	f.expectStatus(t, machine.StatusCrashed)
	f.ok(t, "rm", f.name)
	f.expectNothingLeft(t, "qemu")
}

// crash lets the next QEMU after the process last, which starts a guest, make an error of its own. A signal from outside
// would not do, because QEMU may be the first process of its namespace.
func (f *faults) crash(t *testing.T, last int) (pid int) {
	t.Helper()
	f.waitState(t, func(st machine.State) bool {
		pid = st.QEMU
		return pid != 0 && pid != last && st.Status == machine.StatusStarting
	})
	runtime.LockOSThread() // whose the traced process is
	defer runtime.UnlockOSThread()
	if err := unix.PtraceAttach(pid); err != nil {
		t.Fatalf("tracing QEMU: %v", err)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil || !status.Stopped() {
		t.Fatalf("stopping QEMU: %v, %v", status, err)
	}
	if err := jumpNowhere(pid); err != nil {
		t.Fatal(err)
	}
	if err := unix.PtraceDetach(pid); err != nil {
		t.Fatal(err)
	}
	return pid
}
