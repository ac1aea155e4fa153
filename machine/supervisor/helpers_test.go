package supervisor

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/disk"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/snapshot"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/qemu"
)

func testHost(t *testing.T) *machine.Host {
	t.Helper()
	root := t.TempDir()
	host, err := machine.OpenHost(layout.Dirs{Data: root + "/data", State: root + "/state", Runtime: root + "/run", Cache: root + "/cache"})
	if err != nil {
		t.Fatal(err)
	}
	return host
}

func testConfig(name string) machine.Config {
	return machine.Config{
		Name: name,
		Hardware: machine.Hardware{
			Image: image.Ref{Name: "test", Digest: strings.Repeat("0", 64)}, MemoryMiB: 512, CPUs: 1,
			Network: network.ModeUser, Transport: agent.TransportAuto,
		},
		Life: machine.Life{ReadyTimeout: time.Minute},
	}
}

// create makes a sandbox, and what would be its supervisor.
func create(t *testing.T) *supervisor {
	t.Helper()
	host := testHost(t)
	s, err := host.Create(testConfig("a"))
	if err != nil {
		t.Fatal(err)
	}
	v := testSupervisor(s)
	v.host = host
	return v
}

func testSupervisor(s *machine.Sandbox) *supervisor {
	return &supervisor{s: s, log: slog.New(slog.DiscardHandler)}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// saveTest publishes a snapshot as save does, without a guest.
func saveTest(t *testing.T, s *machine.Sandbox, tag string) snapshot.Manifest {
	t.Helper()
	draft := filepath.Join(s.Files().Snapshots(), durable.HiddenName(durable.DraftPrefix, tag))
	if err := os.MkdirAll(filepath.Join(draft, layout.DiskDir), 0o700); err != nil {
		t.Fatal(err)
	}
	snap := snapshot.Manifest{Version: snapshot.Version, Tag: tag, Created: time.Now(), Memory: new(snapshot.File), Disk: make([]snapshot.File, 1)}
	writeFile(t, filepath.Join(draft, snapshot.DevicesFile), "devices")
	writeFile(t, filepath.Join(draft, snapshot.MemoryFile), "memory")
	layer := disk.Layers(layout.DiskDir).File(0)
	err := qemu.CreateDisk(filepath.Join(draft, layer), testDiskBytes)
	for name, file := range map[string]*snapshot.File{snapshot.DevicesFile: &snap.Devices, snapshot.MemoryFile: snap.Memory, layer: &snap.Disk[0]} {
		if err == nil {
			*file, err = snapshot.Describe(t.Context(), filepath.Join(draft, name))
		}
	}
	if err == nil {
		err = snapshot.Write(draft, snap)
	}
	if err == nil {
		err = snapshot.Publish(draft, s.Files().Snapshot(tag))
	}
	if err != nil {
		t.Fatal(err)
	}
	return snap
}
