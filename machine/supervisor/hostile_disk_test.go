package supervisor

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/disk"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/snapshot"
)

// headerAttacks are what a QEMU that a guest has taken over may leave in the
// header of an image that it had open: names of a file that it cannot open
// itself, for whoever opens the image next.
var headerAttacks = map[string]func(header []byte, canary string){
	"another image below": func(header []byte, canary string) {
		const place = 1024
		binary.BigEndian.PutUint64(header[8:], place)
		binary.BigEndian.PutUint32(header[16:], uint32(len(canary)))
		copy(header[place:], canary)
	},
	"another file for the data": func(header []byte, canary string) {
		header[79] |= 1 << 2                      // the incompatible feature
		binary.BigEndian.PutUint64(header[8:], 0) // no image below, whose name would be in the way
		copy(header[104:], binary.BigEndian.AppendUint32(nil, 0x44415441))
		copy(header[108:], binary.BigEndian.AppendUint32(nil, uint32(len(canary))))
		copy(header[112:], canary)
	},
	"another format": func(header []byte, canary string) { copy(header, strings.Repeat("\x00", 512)) },
}

// attack rewrites the header of an image.
func attack(t *testing.T, path, canary string, change func([]byte, string)) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	header := make([]byte, 4096)
	if _, err := f.ReadAt(header, 0); err != nil {
		t.Fatal(err)
	}
	change(header, canary)
	if _, err := f.WriteAt(header, 0); err != nil {
		t.Fatal(err)
	}
}

func TestHostileLayersAreUsedByNothing(t *testing.T) {
	canary := filepath.Join(t.TempDir(), "canary")
	writeFile(t, canary, "untouched")
	host := testHost(t)
	number := 0
	for what, change := range headerAttacks {
		for changed := range 3 {
			number++
			c := testConfig(fmt.Sprintf("s%d", number))
			c.DiskMiB = testDiskBytes >> 20
			s, err := host.Create(c)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(string(newLayers(t, 3)), s.Files().Disk(layout.DiskDir)); err != nil {
				t.Fatal(err)
			}
			layers := disk.Layers(s.Files().Disk(layout.DiskDir))
			attack(t, layers.File(changed), canary, change)
			v := testSupervisor(s)
			v.config = c

			// A snapshot that was saved in the same moment has a checksum that fits.
			snap := saveTest(t, s, "one")
			from := disk.Layers(filepath.Join(s.Files().Snapshot("one"), layout.DiskDir))
			if err := os.RemoveAll(string(from)); err != nil {
				t.Fatal(err)
			}
			if err := layers.LinkTo(t.Context(), from, 3); err != nil {
				t.Fatal(err)
			}
			snap.Disk = nil
			for n := range 3 {
				layer, err := snapshot.Describe(t.Context(), from.File(n))
				if err != nil {
					t.Fatal(err)
				}
				snap.Disk = append(snap.Disk, layer)
			}
			for use, try := range map[string]func() error{
				"a start": func() error { _, err := v.prepareDisks(t.Context(), &machine.Plan{}); return err },
				"a grown start": func() error {
					v.config.DiskMiB *= 2
					_, err := v.prepareDisks(t.Context(), &machine.Plan{})
					return err
				},
				"resize":  func() error { _, err := s.Resize(t.Context(), machine.Sizes{DiskMiB: 2 * c.DiskMiB}); return err },
				"a save":  func() error { _, err := v.prepareStill(t.TempDir()); return err },
				"restore": func() error { return s.VerifySnapshot(t.Context(), snap) },
				"a fork": func() error {
					_, err := (&supervisor{s: s, saved: &saved{dir: s.Files().Snapshot("one"), Manifest: snap}}).layRestoredDisk(t.Context(), layout.DiskDir)
					return err
				},
			} {
				err := try()
				if err == nil || !strings.Contains(err.Error(), filepath.Base(layers.File(changed))) {
					t.Errorf("%s in layer %d: %s: %v, want a refusal that names the layer", what, changed, use, err)
					continue
				}
				want := "[new-disk " + s.Name + "]"
				if use == "restore" || use == "a fork" {
					want = "[remove-snapshot " + s.Name + " one]"
				}
				if !strings.Contains(fmt.Sprint(err, remedy.Of(err)), want) {
					t.Errorf("%s in layer %d: %s does not say what to do: %v", what, changed, use, err)
				}
			}
			if after, err := layers.All(); err != nil || len(after) != 3 {
				t.Errorf("%s in layer %d: the disk has %d layers now, %v", what, changed, len(after), err)
			}
			if now, err := s.Config(); err != nil || now.DiskMiB != c.DiskMiB {
				t.Errorf("%s in layer %d: the configuration was changed: %v", what, changed, err)
			}
			if err := s.Reset(t.Context(), false); err != nil {
				t.Errorf("%s in layer %d: the remedy: %v", what, changed, err)
			}
			v.config = c
			if changes, err := v.prepareDisks(t.Context(), &machine.Plan{}); err != nil || len(changes) != 1 || changes[0].needed() {
				t.Errorf("%s in layer %d: after a reset: %+v, %v", what, changed, changes, err)
			}
		}
	}
	if text, err := os.ReadFile(canary); err != nil || string(text) != "untouched" {
		t.Errorf("the canary is %q, %v", text, err)
	}
}
