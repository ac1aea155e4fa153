package machine

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestResizeChangesTheConfigurationOfWhatDoesNotRun(t *testing.T) {
	h := testHost(t)
	s := create(t, h, "a")
	sizes, err := s.Resize(t.Context(), ResizeOptions{MemoryMiB: 300})
	if err != nil || sizes != (Sizes{MemoryMiB: 300}) {
		t.Errorf("less memory: %+v, %v", sizes, err)
	}
	// The next start makes the disk.
	sizes, err = s.Resize(t.Context(), ResizeOptions{MemoryMiB: 400, DiskMiB: 2048})
	if err != nil || sizes != (Sizes{MemoryMiB: 400, DiskMiB: 2048}) {
		t.Errorf("more memory and a disk: %+v, %v", sizes, err)
	}
	c, err := s.Config()
	if want := testConfig("a"); err != nil || c.MemoryMiB != 400 || c.DiskMiB != 2048 || c.Image != want.Image || c.CPUs != want.CPUs {
		t.Errorf("the configuration is %+v, %v", c, err)
	}
	for name, tt := range map[string]struct {
		o    ResizeOptions
		want string
	}{
		"too little memory":         {ResizeOptions{MemoryMiB: minMemoryMiB - 1}, "--memory at least 256M"},
		"more than the machine has": {ResizeOptions{MemoryMiB: 1 << 30}, "smaller --memory"},
		"a smaller disk":            {ResizeOptions{MemoryMiB: 512, DiskMiB: 2047}, "has 2G and cannot be made smaller"},
		"too large a disk":          {ResizeOptions{DiskMiB: maxDiskMiB + 1}, "16T"},
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
	if _, err := s.Resize(t.Context(), ResizeOptions{MemoryMiB: 300}); err == nil || !strings.Contains(err.Error(), "another command") {
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
		o    ResizeOptions
		want string // empty: it can
	}{
		"less memory":        {0, ResizeOptions{MemoryMiB: 256}, ""},
		"all its memory":     {0, ResizeOptions{MemoryMiB: 512}, ""},
		"too little memory":  {0, ResizeOptions{MemoryMiB: 255}, "--memory at least 256M"},
		"more memory":        {0, ResizeOptions{MemoryMiB: 1024}, "sandbox resize --memory 1G a"},
		"a first disk":       {0, ResizeOptions{DiskMiB: 64}, "sandbox resize --disk 64M a"},
		"a larger disk":      {64, ResizeOptions{DiskMiB: 128}, ""},
		"the disk as it is":  {64, ResizeOptions{DiskMiB: 64}, ""},
		"a smaller disk":     {128, ResizeOptions{DiskMiB: 64}, "cannot be made smaller"},
		"one of two is good": {64, ResizeOptions{MemoryMiB: 513, DiskMiB: 128}, "was started with 512M"},
	} {
		v.config.DiskMiB = tt.disk
		err := v.checkResize(tt.o)
		if (err == nil) != (tt.want == "") || (err != nil && !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	v.memory = nil
	if err := v.checkResize(ResizeOptions{MemoryMiB: 256}); err == nil || !strings.Contains(err.Error(), "in common") {
		t.Errorf("a fork that shares its memory: %v", err)
	}
}

func TestResizeRequestsThatMakeNoSenseAreRefused(t *testing.T) {
	v := testSupervisor(&Sandbox{Name: "a"})
	for query, want := range map[string]int{
		"memory=much": http.StatusBadRequest, "disk=-1": http.StatusBadRequest, "memory=0": http.StatusBadRequest,
		"memory=512": http.StatusConflict, // it does not run
	} {
		w := httptest.NewRecorder()
		v.serveResize(w, httptest.NewRequest(http.MethodPost, "/v1/resize?"+query, nil))
		if w.Code != want {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
		}
	}
	v.standing.Lock()
	if _, err := v.resize(t.Context(), ResizeOptions{MemoryMiB: 512}); !errors.Is(err, errStanding) {
		t.Errorf("during another change: %v", err)
	}
}
