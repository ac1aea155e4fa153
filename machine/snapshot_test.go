package machine

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

func testSupervisor(s *Sandbox) *supervisor {
	return &supervisor{s: s, log: slog.New(slog.DiscardHandler)}
}

// saveTest publishes a snapshot as save does, without a guest.
func saveTest(t *testing.T, s *Sandbox, tag string, created time.Time) Snapshot {
	t.Helper()
	draft := filepath.Join(s.Files().Snapshots(), durable.HiddenName(durable.DraftPrefix, tag))
	if err := os.MkdirAll(draft, 0o700); err != nil {
		t.Fatal(err)
	}
	snap := Snapshot{Version: snapshotVersion, Tag: tag, Created: created, Memory: new(SnapshotFile), Disk: make([]SnapshotFile, 1)}
	if err := os.Mkdir(filepath.Join(draft, layout.DiskDir), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]*SnapshotFile{devicesFile: &snap.Devices, memoryFile: snap.Memory, layers(layout.DiskDir).file(0): &snap.Disk[0]} {
		path := filepath.Join(draft, name)
		writeFile(t, path, name+" of "+tag)
		var err error
		if strings.HasSuffix(name, layerSuffix) {
			err = qemu.CreateDisk(path, testDiskBytes)
		}
		if err != nil {
			t.Fatal(err)
		}
		if *file, err = describeFile(t.Context(), path); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.WriteJSON(filepath.Join(draft, manifestFile), snap); err != nil {
		t.Fatal(err)
	}
	if err := testSupervisor(s).publishSnapshot(draft, tag); err != nil {
		t.Fatal(err)
	}
	return snap
}

func tags(t *testing.T, s *Sandbox) string {
	t.Helper()
	all, err := s.Snapshots()
	if err != nil {
		t.Error(err)
	}
	var list []string
	for _, snap := range all {
		list = append(list, snap.Tag)
	}
	return strings.Join(list, " ")
}

func TestSnapshotsAreListedByAge(t *testing.T) {
	s := create(t, testHost(t), "a")
	if got := tags(t, s); got != "" {
		t.Errorf("without any: %q", got)
	}
	now := time.Now()
	saveTest(t, s, "b-second", now)
	saveTest(t, s, "c-first", now.Add(-time.Hour))
	if got := tags(t, s); got != "c-first b-second" {
		t.Errorf("got %q", got)
	}
	if err := s.RemoveSnapshot("c-first"); err != nil {
		t.Error(err)
	}
	if err := s.RemoveSnapshot("c-first"); err == nil || !strings.Contains(err.Error(), "snapshot ls a") {
		t.Errorf("removed twice: %v", err)
	}
	if got := tags(t, s); got != "b-second" {
		t.Errorf("after a removal: %q", got)
	}
}

func TestSnapshotIsNeverReplaced(t *testing.T) {
	s := create(t, testHost(t), "a")
	snap := saveTest(t, s, "one", time.Now())
	draft := filepath.Join(s.Files().Snapshots(), durable.HiddenName(durable.DraftPrefix, "one"))
	if err := os.Mkdir(draft, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := testSupervisor(s).publishSnapshot(draft, "one"); err == nil {
		t.Error("published over another one")
	}
	if err := s.checkFreeTag("one"); err == nil || !strings.Contains(err.Error(), "snapshot rm a one") {
		t.Errorf("the tag is not seen as taken: %v", err)
	}
	if err := s.VerifySnapshot(t.Context(), snap); err != nil {
		t.Error(err)
	}
}

func TestHalfOfASnapshotIsNeitherShownNorKept(t *testing.T) {
	s := create(t, testHost(t), "a")
	snap := saveTest(t, s, "good", time.Now())
	for _, name := range []string{durable.HiddenName(durable.DraftPrefix, "half"), durable.HiddenName(durable.RemovedPrefix, "gone")} {
		if err := os.Mkdir(filepath.Join(s.Files().Snapshots(), name), 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(s.Files().Snapshots(), name, memoryFile), "half of it")
	}
	if got := tags(t, s); got != "good" {
		t.Errorf("shown: %q", got)
	}
	testSupervisor(s).sweepLeftovers()
	entries, err := os.ReadDir(s.Files().Snapshots())
	if err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
	if err := s.VerifySnapshot(t.Context(), snap); err != nil {
		t.Error(err)
	}
}

func TestDamagedSnapshotIsRefused(t *testing.T) {
	s := create(t, testHost(t), "a")
	for tag, name := range map[string]string{"memo": memoryFile, "devi": devicesFile, "disk": layers(layout.DiskDir).file(0)} {
		snap := saveTest(t, s, tag, time.Now())
		path := filepath.Join(s.Files().Snapshot(snap.Tag), name)
		writeFile(t, path, "something else")
		if err := s.VerifySnapshot(t.Context(), snap); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("a damaged %s: %v", name, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := s.VerifySnapshot(t.Context(), snap); err == nil {
			t.Errorf("%s is missing, and that is no error", name)
		}
	}
	saveTest(t, s, "good", time.Now())
	writeFile(t, filepath.Join(s.Files().Snapshot("memo"), manifestFile), fmt.Sprintf(`{"version": %d}`, snapshotVersion+1))
	all, err := s.Snapshots()
	if err == nil || len(all) != 3 {
		t.Errorf("with a manifest of another version: %d snapshots, %v", len(all), err)
	}
	if _, err := s.Snapshot("../a"); err == nil || !strings.Contains(err.Error(), "not valid") {
		t.Errorf("a path as a tag: %v", err)
	}
}

func TestDifferencesAreNamed(t *testing.T) {
	needs := Needs{Image: image.Ref{Name: "a", Digest: "1"}, QEMU: "10.0", Machine: "q35", Accel: "tcg", CPU: "emulated", CPUs: 2, MemoryMiB: 1024, Transport: TransportSerial, Network: "user"}
	if got := needs.Differences(needs); len(got) > 0 {
		t.Errorf("equal ones differ: %q", got)
	}
	here := needs
	here.QEMU, here.Accel, here.MemoryMiB = "10.1", "kvm", 2048
	here.Shares = []virtiofs.Share{{Source: "/src", Target: "/dst"}}
	got := strings.Join(needs.Differences(here), "\n")
	for _, want := range []string{"QEMU's version was 10.0 and is 10.1", "accelerator was tcg and is kvm", "memory in MiB was 1024 and is 2048", "/src"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in:\n%s", want, got)
		}
	}
	if strings.Count(got, "\n") != 3 {
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
