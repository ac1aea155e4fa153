package snapshot

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

func TestDifferencesAreNamed(t *testing.T) {
	needs := Needs{Image: image.Ref{Name: "a", Digest: "1"}, QEMU: "10.0", Machine: "q35", Accel: "tcg", CPU: "emulated", CPUs: 2, MemoryMiB: 1024, Transport: agent.TransportSerial, Network: "user"}
	if got := needs.Differences(needs); len(got) > 0 {
		t.Errorf("equal ones differ: %q", got)
	}
	here := needs
	here.QEMU, here.Accel, here.MemoryMiB = "10.1", "kvm", 2048
	here.Shares = []virtiofs.Share{{Source: "/src", Target: "/dst"}}
	got := fmt.Sprint(needs.Differences(here))
	for _, want := range []string{"QEMU's version was 10.0 and is 10.1", "accelerator was tcg and is kvm", "memory in MiB was 1024 and is 2048", "/src"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in:\n%s", want, got)
		}
	}
	if len(needs.Differences(here)) != 4 {
		t.Errorf("more differs than does:\n%s", got)
	}
	// A disk can have grown since, and nothing else.
	for sizes, want := range map[[2]int]int{{64, 128}: 0, {128, 64}: 1, {0, 64}: 1, {64, 0}: 1} {
		was, is := needs, needs
		was.DiskMiB, is.DiskMiB = sizes[0], sizes[1]
		if got := was.Differences(is); len(got) != want {
			t.Errorf("a disk of %d MiB, and now of %d: %q", sizes[0], sizes[1], got)
		}
	}
}

func TestHostProcessorIsTheFirstOneWithItsFeatures(t *testing.T) {
	const one = "processor : 0\nmodel name\t: Fast 9000\ncpu MHz : 800\nflags\t\t: fpu sse\n\n"
	a := hostProcessor(one + "processor : 1\nmodel name : Slow\n")
	if !strings.HasPrefix(a, "Fast 9000 with the features ") {
		t.Errorf("got %q", a)
	}
	if b := hostProcessor(strings.Replace(one, "800", "900", 1)); b != a {
		t.Errorf("another clock rate is another processor: %q, %q", a, b)
	}
	if b := hostProcessor(strings.Replace(one, "sse", "sse avx", 1)); b == a {
		t.Error("another feature makes no difference")
	}
}
