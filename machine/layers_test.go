package machine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/qemu"
)

// newLayers makes a disk of the given number of layers with real qemu-img.
func newLayers(t *testing.T, count int) (disk layers, img string) {
	t.Helper()
	img, err := qemu.FindImg("")
	if err != nil {
		t.Skip(err) // names the package to install
	}
	disk = layers(filepath.Join(t.TempDir(), "disk"))
	if err := os.Mkdir(string(disk), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := qemu.CreateDisk(t.Context(), img, disk.path(0), 64); err != nil {
		t.Fatal(err)
	}
	for range count - 1 {
		if err := disk.add(t.Context(), img); err != nil {
			t.Fatal(err)
		}
	}
	return disk, img
}

func count(t *testing.T, disk layers) int {
	t.Helper()
	files, err := disk.all()
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

func TestDiskOfLayersIsOneDrive(t *testing.T) {
	disk, _ := newLayers(t, 12) // more than ten: their order is that of numbers
	drive, err := disk.drive()
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(drive.Path) != "11.qcow2" || len(drive.Backing) != 11 || filepath.Base(drive.Backing[2]) != "2.qcow2" {
		t.Errorf("got %+v", drive)
	}
	if err := os.Remove(disk.path(3)); err != nil {
		t.Fatal(err)
	}
	if _, err := disk.drive(); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "3.qcow2") {
		t.Errorf("without a layer: %v", err)
	}
	if _, err := layers(t.TempDir()).drive(); err == nil {
		t.Error("a disk without any layer is a drive")
	}
}

func TestLayersAreUnitedUnlessASnapshotHasThem(t *testing.T) {
	disk, img := newLayers(t, 5)
	snapshot := layers(filepath.Join(t.TempDir(), "snapshot"))
	if err := disk.linkTo(t.Context(), snapshot, 2); err != nil {
		t.Fatal(err)
	}
	if err := disk.merge(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	// 0 and 1 are the snapshot's, so what was written after it needs a layer.
	if got := count(t, disk); got != 3 {
		t.Errorf("%d layers are left, want 3", got)
	}
	if err := os.RemoveAll(string(snapshot)); err != nil {
		t.Fatal(err)
	}
	if err := disk.merge(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	if got := count(t, disk); got != 1 {
		t.Errorf("%d layers are left without the snapshot, want 1", got)
	}
}
