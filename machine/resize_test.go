package machine

import (
	"errors"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/machine/api"
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
		"too little memory":         {Sizes{MemoryMiB: minMemoryMiB - 1}, "--memory at least 256M"},
		"more than the machine has": {Sizes{MemoryMiB: 1 << 30}, "smaller --memory"},
		"a smaller disk":            {Sizes{MemoryMiB: 512, DiskMiB: 2047}, "has 2G and cannot be made smaller"},
		"too large a disk":          {Sizes{DiskMiB: maxDiskMiB + 1}, "16T"},
	} {
		if _, err := s.Resize(t.Context(), tt.o); err == nil || !strings.Contains(err.Error(), tt.want) {
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

func TestRunningSandboxIsRefusedWhatItCannotHave(t *testing.T) {
	memory, err := newMemory(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	v := &supervisor{s: &Sandbox{Name: "a"}, config: testConfig("a"), memory: memory}
	for name, tt := range map[string]struct {
		disk int
		o    Sizes
		want string // empty: it can
	}{
		"less memory":        {0, Sizes{MemoryMiB: 256}, ""},
		"all its memory":     {0, Sizes{MemoryMiB: 512}, ""},
		"too little memory":  {0, Sizes{MemoryMiB: 255}, "--memory at least 256M"},
		"more memory":        {0, Sizes{MemoryMiB: 1024}, "sandbox resize --memory 1G a"},
		"a first disk":       {0, Sizes{DiskMiB: 64}, "sandbox resize --disk 64M a"},
		"a larger disk":      {64, Sizes{DiskMiB: 128}, ""},
		"the disk as it is":  {64, Sizes{DiskMiB: 64}, ""},
		"a smaller disk":     {128, Sizes{DiskMiB: 64}, "cannot be made smaller"},
		"one of two is good": {64, Sizes{MemoryMiB: 513, DiskMiB: 128}, "was started with 512M"},
	} {
		v.config.DiskMiB = tt.disk
		err := v.checkResize(tt.o)
		if (err == nil) != (tt.want == "") || (err != nil && !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	v.memory = nil
	if err := v.checkResize(Sizes{MemoryMiB: 256}); err == nil || !strings.Contains(err.Error(), "in common") {
		t.Errorf("a fork that shares its memory: %v", err)
	}
}

func TestResizeRequestsThatMakeNoSenseAreRefused(t *testing.T) {
	v := testSupervisor(&Sandbox{Name: "a"})
	for want, sizes := range map[api.Code]Sizes{
		api.CodeInvalid:    {DiskMiB: -1},
		api.CodeNotRunning: {MemoryMiB: 512},
	} {
		_, err := backend{v}.Resize(t.Context(), sizes)
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != want {
			t.Errorf("%+v: %v, want an error with the code %s", sizes, err, want)
		}
	}
	v.standing.Lock()
	if _, err := v.resize(t.Context(), Sizes{MemoryMiB: 512}); !errors.Is(err, api.ErrBusy) {
		t.Errorf("during another change: %v", err)
	}
}
