package machine

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/internal/remedy"
)

func TestResizeChangesTheConfigurationOfWhatDoesNotRun(t *testing.T) {
	h := testHost(t)
	s := create(t, h, "a")
	sizes, err := s.Resize(t.Context(), Sizes{MemoryMiB: 300})
	if err != nil || sizes != (Sizes{MemoryMiB: 300}) {
		t.Errorf("less memory: %+v, %v", sizes, err)
	}
	// The next start makes the disk.
	sizes, err = s.Resize(t.Context(), Sizes{MemoryMiB: 400, DiskMiB: 2048})
	if err != nil || sizes != (Sizes{MemoryMiB: 400, DiskMiB: 2048}) {
		t.Errorf("more memory and a disk: %+v, %v", sizes, err)
	}
	c, err := s.Config()
	if want := testConfig("a"); err != nil || c.MemoryMiB != 400 || c.DiskMiB != 2048 || c.Image != want.Image || c.CPUs != want.CPUs {
		t.Errorf("the configuration is %+v, %v", c, err)
	}
	for name, tt := range map[string]struct {
		o    Sizes
		want string
	}{
		"too little memory":         {Sizes{MemoryMiB: MinMemoryMiB - 1}, "[set memory at least 256M]"},
		"more than the machine has": {Sizes{MemoryMiB: 1 << 30}, "[less-memory]"},
		"a smaller disk":            {Sizes{MemoryMiB: 512, DiskMiB: 2047}, "has 2G and cannot be made smaller"},
		"too large a disk":          {Sizes{DiskMiB: maxDiskMiB + 1}, "16T"},
	} {
		if _, err := s.Resize(t.Context(), tt.o); err == nil || !strings.Contains(fmt.Sprint(err, remedy.Of(err)), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		if now, _ := s.Config(); now.MemoryMiB != 400 || now.DiskMiB != 2048 {
			t.Errorf("%s: the configuration was changed to %+v", name, now)
		}
	}
	lock, err := s.Files().Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, err := s.Resize(t.Context(), Sizes{MemoryMiB: 300}); err == nil || !strings.Contains(err.Error(), "another command") {
		t.Errorf("while another command changes it: %v", err)
	}
}
