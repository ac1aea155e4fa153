package qemu

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// workingHost is a machine on which the probe guest ends as run says.
func workingHost(t *testing.T, run func(context.Context) error) kvmHost {
	t.Helper()
	device := filepath.Join(t.TempDir(), "kvm")
	if err := os.WriteFile(device, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return kvmHost{device: device, boot: "boot 1", arch: X86_64, user: "dev", now: time.Unix(1e9, 0), run: run}
}

func kvmCapabilities() Capabilities {
	return Capabilities{Binary: "/usr/bin/qemu", Accels: []Accel{AccelTCG, AccelKVM}}
}

func TestKVMIsUsableWhenTheGuestRan(t *testing.T) {
	h := workingHost(t, func(context.Context) error { return nil })
	k, err := h.probe(t.Context(), kvmCapabilities(), X86_64, "qemu", cache{})
	if err != nil || k != (KVM{Usable: true}) {
		t.Errorf("probe = %+v, %v", k, err)
	}
}

func TestKVMUnusableWithReasonAndRemedy(t *testing.T) {
	for name, tt := range map[string]struct {
		change         func(*kvmHost, *Capabilities)
		reason, remedy string
	}{
		"device absent": {
			func(h *kvmHost, _ *Capabilities) { h.device = "/nonexistent/kvm" },
			"/nonexistent/kvm does not exist", "modprobe",
		},
		"device is something else": {
			func(h *kvmHost, _ *Capabilities) { h.device = t.TempDir() },
			"cannot be opened: ", "dmesg",
		},
		"another architecture": {
			func(h *kvmHost, _ *Capabilities) { h.arch = AArch64 },
			"the guest's architecture is x86_64 and this machine's is aarch64", "image for aarch64",
		},
		"QEMU without KVM": {
			func(_ *kvmHost, caps *Capabilities) { caps.Accels = []Accel{AccelTCG} },
			"/usr/bin/qemu was built without KVM", "qemu-system-x86",
		},
		"guest does not run": {
			func(*kvmHost, *Capabilities) {},
			"opens, but the guest stood still", "dmesg",
		},
		"guest does not run on a paravirtual hypervisor": {
			func(h *kvmHost, _ *Capabilities) { h.pvm = true },
			"opens, but the guest stood still", "kvm_pvm",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := workingHost(t, func(context.Context) error { return &probeFailure{"the guest stood still"} })
			caps := kvmCapabilities()
			tt.change(&h, &caps)
			k, err := h.probe(t.Context(), caps, X86_64, "qemu", cache{})
			if err != nil || k.Usable || !strings.Contains(k.Reason, tt.reason) || !strings.Contains(k.Remedy, tt.remedy) {
				t.Errorf("probe = %+v, %v, want %q and %q", k, err, tt.reason, tt.remedy)
			}
		})
	}
}

func TestKVMNotPermittedNamesUserAndGroup(t *testing.T) {
	if os.Getuid() == 0 {
		// Root opens everything; what it would be told is still ours to check.
		if got := permissionRemedy("/nonexistent/kvm", "dev"); got == "" {
			t.Error("there is no remedy")
		}
		t.Skip("root may open every file: run this test as an ordinary user")
	}
	h := workingHost(t, func(context.Context) error { return nil })
	if err := os.Chmod(h.device, 0); err != nil {
		t.Fatal(err)
	}
	k, err := h.probe(t.Context(), kvmCapabilities(), X86_64, "qemu", cache{})
	if err != nil || !strings.Contains(k.Reason, "the user dev may not open") || !strings.Contains(k.Remedy, "usermod -aG kvm dev") {
		t.Errorf("probe = %+v, %v", k, err)
	}
}

func TestKVMProbeIsRepeatedOnlyWhenItMayAnswerDifferently(t *testing.T) {
	var ran int
	var verdict error
	h := workingHost(t, func(context.Context) error { ran++; return verdict })
	store := cache{dir: t.TempDir()}
	probe := func(id string) KVM {
		t.Helper()
		k, err := h.probe(t.Context(), kvmCapabilities(), X86_64, id, store)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	expect := func(what string, want int) {
		t.Helper()
		if ran != want {
			t.Errorf("%s: the guest ran %d times, want %d", what, ran, want)
		}
	}

	probe("qemu 1")
	h.now = h.now.Add(1000 * time.Hour)
	if !probe("qemu 1").Usable {
		t.Error("the kept answer differs from the first one")
	}
	expect("success is kept", 1)
	probe("qemu 2")
	expect("another QEMU", 2)
	h.boot = "boot 2"
	verdict = &probeFailure{"it stood still"}
	probe("qemu 1")
	expect("another boot", 3)
	if probe("qemu 1").Usable {
		t.Error("the kept answer differs from the first one")
	}
	expect("failure is kept for a while", 3)
	h.now = h.now.Add(2 * time.Hour)
	probe("qemu 1")
	expect("an old failure", 4)
}

func TestKVMProbeThatCouldNotRunIsAnErrorAndNotKept(t *testing.T) {
	var ran int
	h := workingHost(t, func(context.Context) error { ran++; return errors.New("the disk is full") })
	store := cache{dir: t.TempDir()}
	for range 2 {
		if _, err := h.probe(t.Context(), kvmCapabilities(), X86_64, "qemu", store); err == nil {
			t.Error("probe hid the error")
		}
	}
	if ran != 2 {
		t.Errorf("the guest was tried %d times, want 2", ran)
	}
}

func TestKVMProbeEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	h := workingHost(t, func(context.Context) error { cancel(); return &probeFailure{"it was still running"} })
	dir := t.TempDir()
	if _, err := h.probe(ctx, kvmCapabilities(), X86_64, "qemu", cache{dir: dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("probe = %v, want context.Canceled", err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("an interrupted probe was kept: %v, %v", files, err)
	}
}

// TestProbeGuestRuns proves that the guest itself is right: what fails under KVM is then KVM's fault.
func TestProbeGuestRuns(t *testing.T) {
	for _, arch := range []Arch{X86_64, AArch64} {
		t.Run(string(arch), func(t *testing.T) {
			caps := realQEMU(t, arch)
			if err := runProbeGuest(t.Context(), caps, arch, AccelTCG, time.Minute); err != nil {
				t.Error(err)
			}
		})
	}
}

// ofAnotherSession is set in the environment of a test that runs in another process.
const ofAnotherSession = "QEMU_TEST_SESSION"

// TestQEMUStartsWithTheLimitsOfASession has the soft limit of open files below the hard one, as login sessions do, and
// allows no core dumps for good, as sudo does.
func TestQEMUStartsWithTheLimitsOfASession(t *testing.T) {
	if os.Getenv(ofAnotherSession) == "" {
		t.Setenv(ofAnotherSession, "1")
		id, attr := os.Getuid(), (*syscall.SysProcAttr)(nil)
		if id == 0 { // who may raise its limits again
			id, attr = ordinaryUser()
		}
		if out, err := testAs(t, t.Name(), id, attr, ofAnotherSession); err != nil || !bytes.Contains(out, []byte("--- PASS")) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	for resource, limit := range map[int]unix.Rlimit{unix.RLIMIT_CORE: {}, unix.RLIMIT_NOFILE: {Cur: 512, Max: 1024}} {
		if err := unix.Setrlimit(resource, &limit); err != nil {
			t.Fatal(err)
		}
	}
	if err := runProbeGuest(t.Context(), realQEMU(t, X86_64), X86_64, AccelTCG, time.Minute); err != nil {
		t.Error(err)
	}
}

func TestProbeGuestThatStandsStillIsAFailure(t *testing.T) {
	for name, want := range map[string]string{
		"silent":       "did not start: it was still running after 50ms",
		"reset":        "no further than long mode: QEMU ended as if all were well",
		"aborted":      "did not start: aborted ended with exit status 134; failed to set MSR",
		"right status": "did not start",
		"right words":  "no further than its end",
	} {
		t.Run(name, func(t *testing.T) {
			caps := Capabilities{Binary: fakeProgram(t, name)}
			deadline := time.Minute
			if strings.Contains(want, "still running") {
				deadline = 50 * time.Millisecond
			}
			err := runProbeGuest(t.Context(), caps, X86_64, AccelTCG, deadline)
			var failure *probeFailure
			if !errors.As(err, &failure) || !strings.Contains(err.Error(), want) {
				t.Errorf("runProbeGuest = %v, want %q", err, want)
			}
		})
	}
}

func TestProbeGuestThatIsStuckSaysWhere(t *testing.T) {
	guest, err := newProbeGuest(X86_64)
	if err != nil {
		t.Fatal(err)
	}
	err = guest.judge(errors.New("signal: killed"), "rp", context.DeadlineExceeded, 3*time.Second)
	want := "a test guest got no further than protected mode: it was still running after 3s"
	if err == nil || err.Error() != want {
		t.Errorf("judge = %v, want %q", err, want)
	}
}
