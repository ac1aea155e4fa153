package supervisor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/confine"
	"github.com/sourcery-zone/sandbox/internal/socketpair"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/disk"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/network/gateway/server"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/qmp"
)

// TestMain is also what confines the programs that the tests start, and some of
// those.
func TestMain(m *testing.M) {
	confine.Main()
	server.Main()
	beFake()
	os.Exit(m.Run())
}

const testDiskBytes = 64 << 20

// newLayers makes a disk of the given number of layers.
func newLayers(t *testing.T, count int) disk.Layers {
	t.Helper()
	layers := disk.Layers(filepath.Join(t.TempDir(), "disk"))
	if err := os.Mkdir(string(layers), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := qemu.CreateDisk(layers.File(0), testDiskBytes); err != nil {
		t.Fatal(err)
	}
	for range count - 1 {
		if _, err := layers.Add(); err != nil {
			t.Fatal(err)
		}
	}
	return layers
}

// imageTool runs qemu-img or qemu-io, which judge what our own programs do.
func imageTool(t *testing.T, name string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("needs %s: run make setup-test, or sudo apt install qemu-utils", name)
	}
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil || strings.Contains(string(out), "verification failed") {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// writeLayers puts something else into each layer, partly over what the ones
// below have, and returns an image with what is seen of it from above.
func writeLayers(t *testing.T, layers disk.Layers, mib int) (seen string) {
	t.Helper()
	seen = filepath.Join(t.TempDir(), "seen.raw")
	files, err := layers.All()
	if err != nil {
		t.Fatal(err)
	}
	for n, file := range files {
		from, length := strconv.Itoa(n*mib/2)+"M", strconv.Itoa(mib)+"M"
		imageTool(t, "qemu-io", "-f", "qcow2", "-c", "write -P "+strconv.Itoa(n+1)+" "+from+" "+length, "-c", "discard "+from+" 64k", file)
	}
	imageTool(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", files[len(files)-1], seen)
	return seen
}

// expectSeen compares the disk as a whole, and finds out whether it is in order.
func expectSeen(t *testing.T, layers disk.Layers, seen string) {
	t.Helper()
	files, _, err := layers.Check()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		imageTool(t, "qemu-img", "check", "-q", "-f", "qcow2", "-r", "leaks", file)
		imageTool(t, "qemu-img", "check", "-q", "-f", "qcow2", file)
	}
	imageTool(t, "qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", files[len(files)-1], seen)
}

// startDisk starts a QEMU with the disk as a guest's start does, and whose guest
// waits.
func startDisk(t *testing.T, layers disk.Layers) (*supervisor, diskChanges, *qemu.Process) {
	t.Helper()
	binary, err := qemu.Find(qemu.HostArch())
	if err != nil {
		t.Skip(err) // names the package to install
	}
	caps, err := qemu.Probe(t.Context(), binary, "")
	if err != nil {
		t.Fatal(err)
	}
	kernel := filepath.Join(t.TempDir(), "kernel") // never run
	if err := os.WriteFile(kernel, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := layers.All()
	if err != nil {
		t.Fatal(err)
	}
	changes := diskChanges{Disk: disk.Disk{Name: layout.DiskDir}, files: files}
	if changes.merge, err = disk.Mergeable(files); err != nil {
		t.Fatal(err)
	}
	vm := qemu.Config{
		Arch: qemu.HostArch(), Accel: qemu.AccelTCG, CPUs: 1, MemoryMiB: 128, Kernel: kernel, Paused: true,
		Drives: []qemu.Drive{disk.Drive(layout.DiskDir, files, changes.merge)},
	}
	ours, theirs, err := socketpair.New(unix.SOCK_STREAM, "qmp")
	if err != nil {
		t.Fatal(err)
	}
	inherited := &qemu.Files{}
	vm.MonitorFD = inherited.Add(theirs)
	launcher, err := qemu.Ready(context.WithoutCancel(t.Context()), caps, qemu.LaunchOptions{Accel: vm.Accel, AllowWeak: true})
	if err != nil {
		t.Fatal(err)
	}
	p, err := launcher.Start(vm, qemu.StartOptions{Files: inherited})
	if err != nil {
		t.Fatal(err)
	}
	v := testSupervisor(&machine.Sandbox{Name: "a"})
	v.monitor = qmp.NewClient(ours, qmp.Options{})
	t.Cleanup(func() {
		v.monitor.Close()
		_ = p.Stop(context.Background(), 0) // it may have ended
	})
	if err := v.monitor.Handshake(t.Context()); err != nil {
		<-p.Done()
		t.Fatalf("%v; %v", err, p.Err())
	}
	return v, changes, p
}

// mergeDisk unites what can be united, and ends QEMU without a word.
func mergeDisk(t *testing.T, layers disk.Layers) {
	t.Helper()
	v, changes, p := startDisk(t, layers)
	if err := v.changeDisks(t.Context(), []diskChanges{changes}); err != nil {
		t.Fatal(err)
	}
	if changes.needed() {
		if s, err := v.monitor.Status(t.Context()); err != nil || !s.Running {
			t.Errorf("the guest does not go on: %+v, %v", s, err)
		}
	}
	_ = p.Stop(t.Context(), 0) // killed
}

func count(t *testing.T, layers disk.Layers) int {
	t.Helper()
	files, err := layers.All()
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

func TestDiskOfLayersIsOneDrive(t *testing.T) {
	layers := newLayers(t, 12) // more than ten: their order is that of numbers
	files, size, err := layers.Check()
	if err != nil || size != testDiskBytes {
		t.Fatal(size, err)
	}
	d := disk.Drive(layout.DiskDir, files, 2)
	if filepath.Base(d.Path) != "11.qcow2" || len(d.Backing) != 11 || filepath.Base(d.Backing[2]) != "2.qcow2" || d.Mergeable != 2 {
		t.Errorf("got %+v", d)
	}
	if err := os.Remove(layers.File(3)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := layers.Check(); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "3.qcow2") {
		t.Errorf("without a layer: %v", err)
	}
	if _, _, err := disk.Layers(t.TempDir()).Check(); err == nil {
		t.Error("a disk without any layer is a drive")
	}
}

func TestLayersAreUnitedUnlessASnapshotHasThem(t *testing.T) {
	layers := newLayers(t, 5)
	seen := writeLayers(t, layers, 4)
	snapshot := disk.Layers(filepath.Join(t.TempDir(), "snapshot"))
	if err := layers.LinkTo(t.Context(), snapshot, 2); err != nil {
		t.Fatal(err)
	}
	imageTool(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", snapshot.File(1), seen+"-before")
	mergeDisk(t, layers)
	// 0 and 1 are the snapshot's, so what was written after it needs a layer.
	if got := count(t, layers); got != 3 {
		t.Errorf("%d layers are left, want 3", got)
	}
	expectSeen(t, layers, seen)
	expectSeen(t, snapshot, seen+"-before")
	if err := os.RemoveAll(string(snapshot)); err != nil {
		t.Fatal(err)
	}
	mergeDisk(t, layers)
	if got := count(t, layers); got != 1 {
		t.Errorf("%d layers are left without the snapshot, want 1", got)
	}
	expectSeen(t, layers, seen)
}

// The uppermost layer is larger than what is below it when a disk has grown
// after a snapshot that is gone.
func TestDiskThatHasGrownIsUnitedAndGrowsOn(t *testing.T) {
	layers := newLayers(t, 2)
	imageTool(t, "qemu-img", "resize", "-q", "-f", "qcow2", layers.File(1), "1G")
	imageTool(t, "qemu-io", "-f", "qcow2", "-c", "write -P 9 1000M 1M", layers.File(1))
	v, changes, p := startDisk(t, layers)
	changes.MiB, changes.grow = 4096, true
	if err := v.changeDisks(t.Context(), []diskChanges{changes}); err != nil {
		t.Fatal(err)
	}
	// A snapshot's layer takes the place, and the name, of one that is gone.
	files, err := layers.Add()
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	layer, err := os.OpenFile(files[1], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	err = v.monitor.SnapshotDrive(t.Context(), layout.DiskDir, qemu.LayerNode(layout.DiskDir, 1), layer)
	if err := errors.Join(err, layer.Close()); err != nil { // QEMU's locks are the descriptor's
		t.Error(err)
	}
	_ = p.Stop(t.Context(), 0) // killed
	mergeDisk(t, layers)
	files, size, err := layers.Check()
	if err != nil || len(files) != 1 || size != 4<<30 {
		t.Errorf("%d layers of %d bytes, %v", len(files), size, err)
	}
	imageTool(t, "qemu-img", "check", "-q", "-f", "qcow2", files[0])
	imageTool(t, "qemu-io", "-f", "qcow2", "-c", "read -P 9 1000M 1M", files[0])
}

// A layer that QEMU has inherited takes no space any more once it is united with
// the one below.
func TestUnitedLayerGivesItsSpaceBack(t *testing.T) {
	layers := newLayers(t, 2)
	writeLayers(t, layers, 4)
	top, err := os.Open(layers.File(1))
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	mergeDisk(t, layers)
	var stat unix.Stat_t
	if err := unix.Fstat(int(top.Fd()), &stat); err != nil || stat.Nlink != 0 || stat.Blocks != 0 {
		t.Errorf("the upper layer has %d names and %d blocks, %v", stat.Nlink, stat.Blocks, err)
	}
}

// QEMU is killed at each step, and with it whoever waits for it. What the disk
// shows is the same afterwards, and the next start goes on.
func TestKillWhileLayersAreUnitedLosesNothing(t *testing.T) {
	for _, moment := range []string{"created", "running", "ready", "pending", "concluded", "grown"} {
		layers := newLayers(t, 3)
		seen := writeLayers(t, layers, 8)
		v, changes, p := startDisk(t, layers)
		if moment == "grown" {
			changes.MiB, changes.grow = 256, true
			imageTool(t, "qemu-img", "resize", "-q", "-f", "raw", seen, "256M")
		}
		events, err := v.monitor.Events(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for e := range events {
				if e.Event == "JOB_STATUS_CHANGE" && e.Data["status"] == moment {
					_ = p.Stop(context.Background(), 0) // killed
				}
			}
		}()
		// Whether its last answers came before its end is not certain.
		_ = v.changeDisks(t.Context(), []diskChanges{changes})
		_ = p.Stop(t.Context(), 0)
		expectSeen(t, layers, seen)
		mergeDisk(t, layers)
		if got := count(t, layers); got != 1 {
			t.Errorf("killed when the job was %s: %d layers are left by the next start", moment, got)
		}
		expectSeen(t, layers, seen)
	}
}

// A cache gets a layer with each sandbox that has used it.
func TestADiskThatOthersHaveGetsNoDeeperWithoutEnd(t *testing.T) {
	layers := newLayers(t, 8)
	seen := writeLayers(t, layers, 4)
	kept := disk.Layers(filepath.Join(t.TempDir(), "kept"))
	if err := layers.LinkTo(t.Context(), kept, 8); err != nil {
		t.Fatal(err)
	}
	files, err := layers.Claim(t.Context())
	if err != nil || len(files) != 9 {
		t.Fatal(files, err)
	}
	expectSeen(t, layers, seen)
	mergeDisk(t, layers)
	if got := count(t, layers); got != 1 {
		t.Errorf("%d layers are left, want 1", got)
	}
	expectSeen(t, layers, seen)
	expectSeen(t, kept, seen)
	// One that nobody else has stays as it is.
	if files, err := layers.Claim(t.Context()); err != nil || len(files) != 1 {
		t.Error(files, err)
	}
}
