package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/disk"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/snapshot"
	"github.com/sourcery-zone/sandbox/qemu"
)

// saveTest publishes a snapshot as save does, without a guest.
func saveTest(t *testing.T, s *Sandbox, tag string, created time.Time) snapshot.Manifest {
	t.Helper()
	draft := filepath.Join(s.Files().Snapshots(), durable.HiddenName(durable.DraftPrefix, tag))
	if err := os.MkdirAll(draft, 0o700); err != nil {
		t.Fatal(err)
	}
	snap := snapshot.Manifest{Version: snapshot.Version, Tag: tag, Created: created, Memory: new(snapshot.File), Disk: make([]snapshot.File, 1)}
	if err := os.Mkdir(filepath.Join(draft, layout.DiskDir), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]*snapshot.File{snapshot.DevicesFile: &snap.Devices, snapshot.MemoryFile: snap.Memory, disk.Layers(layout.DiskDir).File(0): &snap.Disk[0]} {
		path := filepath.Join(draft, name)
		writeFile(t, path, name+" of "+tag)
		var err error
		if strings.HasSuffix(name, ".qcow2") {
			err = qemu.CreateDisk(path, 64<<20)
		}
		if err != nil {
			t.Fatal(err)
		}
		if *file, err = snapshot.Describe(t.Context(), path); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.SaveWorkspaces(t.Context(), draft), snapshot.Write(draft, snap)); err != nil {
		t.Fatal(err)
	}
	if err := snapshot.Publish(draft, s.Files().Snapshot(tag)); err != nil {
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
	if err := s.RemoveSnapshot("c-first"); err == nil || !strings.Contains(fmt.Sprint(err, remedy.Of(err)), "[list-snapshots a]") {
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
	if err := snapshot.Publish(draft, s.Files().Snapshot("one")); err == nil {
		t.Error("published over another one")
	}
	if err := s.CheckFreeTag("one"); err == nil || !strings.Contains(fmt.Sprint(err, remedy.Of(err)), "[other-tag a one]") {
		t.Errorf("the tag is not seen as taken: %v", err)
	}
	if err := s.VerifySnapshot(t.Context(), snap); err != nil {
		t.Error(err)
	}
}

func TestDamagedSnapshotIsRefused(t *testing.T) {
	s := create(t, testHost(t), "a")
	for tag, name := range map[string]string{"memo": snapshot.MemoryFile, "devi": snapshot.DevicesFile, "disk": disk.Layers(layout.DiskDir).File(0)} {
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
	if err := snapshot.Write(s.Files().Snapshot("memo"), snapshot.Manifest{Version: snapshot.Version + 1}); err != nil {
		t.Fatal(err)
	}
	all, err := s.Snapshots()
	if err == nil || len(all) != 3 {
		t.Errorf("with a manifest of another version: %d snapshots, %v", len(all), err)
	}
	if _, err := s.Snapshot("../a"); err == nil || !strings.Contains(err.Error(), "not valid") {
		t.Errorf("a path as a tag: %v", err)
	}
}
