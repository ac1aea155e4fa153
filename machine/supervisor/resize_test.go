package supervisor

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
)

func TestRunningSandboxIsRefusedWhatItCannotHave(t *testing.T) {
	memory, err := newMemory(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	v := &supervisor{s: &machine.Sandbox{Name: "a"}, config: testConfig("a"), memory: memory}
	for name, tt := range map[string]struct {
		disk int
		o    machine.Sizes
		want string // empty: it can
	}{
		"less memory":        {0, machine.Sizes{MemoryMiB: 256}, ""},
		"all its memory":     {0, machine.Sizes{MemoryMiB: 512}, ""},
		"too little memory":  {0, machine.Sizes{MemoryMiB: 255}, "[set memory at least 256M]"},
		"more memory":        {0, machine.Sizes{MemoryMiB: 1024}, "[stop-resize a memory 1G]"},
		"a first disk":       {0, machine.Sizes{DiskMiB: 64}, "[stop-resize a disk 64M]"},
		"a larger disk":      {64, machine.Sizes{DiskMiB: 128}, ""},
		"the disk as it is":  {64, machine.Sizes{DiskMiB: 64}, ""},
		"a smaller disk":     {128, machine.Sizes{DiskMiB: 64}, "cannot be made smaller"},
		"one of two is good": {64, machine.Sizes{MemoryMiB: 513, DiskMiB: 128}, "was started with 512M"},
	} {
		v.config.DiskMiB = tt.disk
		err := v.checkResize(tt.o)
		if (err == nil) != (tt.want == "") || (err != nil && !strings.Contains(fmt.Sprint(err, remedy.Of(err)), tt.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	v.memory = nil
	if err := v.checkResize(machine.Sizes{MemoryMiB: 256}); err == nil || !strings.Contains(err.Error(), "in common") {
		t.Errorf("a fork that shares its memory: %v", err)
	}
}

func TestResizeRequestsThatMakeNoSenseAreRefused(t *testing.T) {
	v := testSupervisor(&machine.Sandbox{Name: "a"})
	for want, sizes := range map[api.Code]machine.Sizes{
		api.CodeInvalid:    {DiskMiB: -1},
		api.CodeNotRunning: {MemoryMiB: 512},
	} {
		_, err := backend{v}.Resize(t.Context(), sizes)
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != want {
			t.Errorf("%+v: %v, want an error with the code %s", sizes, err, want)
		}
	}
	v.transition.Lock()
	if _, err := v.resize(t.Context(), machine.Sizes{MemoryMiB: 512}); !errors.Is(err, api.ErrBusy) {
		t.Errorf("during another change: %v", err)
	}
}
