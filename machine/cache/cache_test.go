package cache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/machine/disk"
	"github.com/sourcery-zone/sandbox/qemu"
)

// newDisk makes a disk of one layer in a directory of that name.
func newDisk(t *testing.T, name string) disk.Layers {
	t.Helper()
	layers := disk.Layers(filepath.Join(t.TempDir(), name))
	if err := os.Mkdir(string(layers), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := qemu.CreateDisk(layers.File(0), 64<<20); err != nil {
		t.Fatal(err)
	}
	return layers
}

func newStore(t *testing.T) Store {
	t.Helper()
	return Store{Dir: filepath.Join(t.TempDir(), ".caches")}
}

func links(t *testing.T, file string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		t.Fatal(err)
	}
	return uint64(st.Nlink)
}

func TestTheNextSandboxBeginsWithWhatWasKept(t *testing.T) {
	store, key := newStore(t), Key{Project: "/src/app", Target: "/home/agent/app/node_modules"}
	taken := disk.Layers(filepath.Join(t.TempDir(), "cache0"))
	if err := store.Take(t.Context(), key, taken); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a cache that nobody has kept: %v", err)
	}
	first := newDisk(t, "cache0")
	if err := store.Keep(t.Context(), key, first); err != nil {
		t.Fatal(err)
	}
	for _, other := range []Key{{Project: "/src/other", Target: key.Target}, {Project: key.Project, Target: "/home/agent/.npm"}} {
		if err := store.Take(t.Context(), other, taken); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%+v has what is another's: %v", other, err)
		}
	}
	if err := store.Take(t.Context(), key, taken); err != nil {
		t.Fatal(err)
	}
	// What is in the store must not be written to, whether by who has kept it or by who has taken it.
	for _, layers := range []disk.Layers{first, taken} {
		files, err := layers.Claim(t.Context())
		if err != nil || len(files) != 2 || links(t, files[1]) != 1 || links(t, files[0]) != 3 {
			t.Errorf("%s: %v, %v", layers, files, err)
		}
	}
	all, err := store.List()
	if err != nil || len(all) != 1 || all[0].Key != key || all[0].Used == 0 || all[0].Kept.IsZero() {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestWhoEndsLastDecidesWhatIsKept(t *testing.T) {
	store, key := newStore(t), Key{Project: "/src/app", Target: "/cache"}
	for _, layers := range []disk.Layers{newDisk(t, "a"), newDisk(t, "b")} {
		if err := store.Keep(t.Context(), key, layers); err != nil {
			t.Fatal(err)
		}
		taken := disk.Layers(filepath.Join(t.TempDir(), "taken"))
		if err := store.Take(t.Context(), key, taken); err != nil {
			t.Fatal(err)
		}
		want, _ := os.Stat(layers.File(0))
		if got, err := os.Stat(taken.File(0)); err != nil || !os.SameFile(want, got) {
			t.Errorf("what was taken is not what was kept last: %v", err)
		}
	}
	entries, err := os.ReadDir(store.Dir)
	if err != nil || len(entries) != 2 { // with the lock
		t.Errorf("the store has %v, %v", entries, err)
	}
}

func TestRemovingACacheLeavesWhatSandboxesHaveOfIt(t *testing.T) {
	store, key := newStore(t), Key{Project: "/src/app", Target: "/cache"}
	layers := newDisk(t, "a")
	if err := store.Keep(t.Context(), key, layers); err != nil {
		t.Fatal(err)
	}
	if err := store.Remove(key); err != nil {
		t.Fatal(err)
	}
	if _, _, err := layers.Check(); err != nil {
		t.Error(err)
	}
	if all, err := store.List(); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
	if err := store.Remove(key); err != nil {
		t.Errorf("once more: %v", err)
	}
}

// A guest that has taken over its QEMU can write headers that make the next QEMU open other files of the host's.
func TestLayersThatWereNotMadeByUsAreNotTaken(t *testing.T) {
	store, key := newStore(t), Key{Project: "/src/app", Target: "/cache"}
	layers := newDisk(t, "a")
	f, err := os.OpenFile(layers.File(0), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// The backing file's offset and length: docs/interop/qcow2 of QEMU.
	if _, err := f.WriteAt([]byte{0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 11}, 8); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("/etc/shadow"), 512); err != nil {
		t.Fatal(err)
	}
	if err := store.Keep(t.Context(), key, layers); err != nil {
		t.Fatal(err)
	}
	taken := disk.Layers(filepath.Join(t.TempDir(), "taken"))
	if _, ok := errors.AsType[*qemu.LayerError](store.Take(t.Context(), key, taken)); !ok {
		t.Error("a layer that names a file of the host was taken")
	}
	if _, err := os.Stat(string(taken)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was taken: %v", err)
	}
}
