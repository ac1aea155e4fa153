package machine

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/disk"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

func TestDiskSizesThatAreImpossibleAreRefused(t *testing.T) {
	for size, ok := range map[int]bool{0: true, minDiskMiB: true, 20 << 10: true, 1: false, -5: false, maxDiskMiB + 1: false} {
		c := testConfig("a")
		c.DiskMiB = size
		if err := c.Validate(); (err == nil) != ok || (err != nil && !strings.Contains(fmt.Sprint(err, remedy.Of(err)), "[set disk a size")) {
			t.Errorf("%d MiB: %v", size, err)
		}
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestResetTakesTheDiskAndNothingElse(t *testing.T) {
	h := testHost(t)
	c := testConfig("a")
	c.DiskMiB = 1024
	s, err := h.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Reset(t.Context(), false); err != nil {
		t.Errorf("before the first start: %v", err)
	}
	if err := os.Mkdir(s.Files().Disk(layout.DiskDir), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, disk.Layers(s.Files().Disk(layout.DiskDir)).File(0), strings.Repeat("x", 6000))
	writeFile(t, disk.Layers(s.Files().Disk(layout.DiskDir)).File(1), strings.Repeat("x", 6000))
	writeFile(t, s.Files().Home()+"/note", "kept")
	if d := s.Info().Disk; d == nil || d.Virtual != 1<<30 || d.Used < 10000 {
		t.Errorf("the disk is shown as %+v", d)
	}

	lock, err := s.Files().Lock()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Reset(t.Context(), false); err == nil || !strings.Contains(fmt.Sprint(err, remedy.Of(err)), "[stop a reset-now a]") {
		t.Errorf("reset of a running sandbox: %v", err)
	}
	lock.Close()

	if err := s.Reset(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.Files().Disk(layout.DiskDir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the disk is still there: %v", err)
	}
	if data, err := os.ReadFile(s.Files().Home() + "/note"); string(data) != "kept" {
		t.Errorf("the home was not kept: %v", err)
	}
	if d := s.Info().Disk; d == nil || d.Used != 0 {
		t.Errorf("after the reset the disk is shown as %+v", d)
	}
	if d := create(t, h, "b").Info().Disk; d != nil {
		t.Errorf("a sandbox without a disk shows %+v", d)
	}
}
