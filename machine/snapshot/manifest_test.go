package snapshot

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sourcery-zone/sandbox/qemu"
)

// What was saved in a machine with as many serial ports as QEMU gives it can only be loaded in such a one.
func TestOldSnapshotNeedsTheSerialPortsOfItsTime(t *testing.T) {
	for manifest, want := range map[string]int{
		`{"version": 3, "tag": "old"}`: qemu.ManySerialPorts,
		`{"version": 4, "tag": "new"}`: 0,
		// One that was restored and saved anew.
		`{"version": 4, "tag": "old", "needs": {"serialPorts": 31}}`: 31,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, manifestFile), []byte(manifest), 0o600); err != nil {
			t.Fatal(err)
		}
		snap, err := Read(dir)
		if err != nil || snap.Needs.SerialPorts != want {
			t.Errorf("%s needs %d serial ports (%v), want %d", manifest, snap.Needs.SerialPorts, err, want)
		}
	}
}
