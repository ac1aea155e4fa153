package machine

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/machine/disk"
	"github.com/sourcery-zone/sandbox/qmp"
)

func TestDiskSizesThatAreImpossibleAreRefused(t *testing.T) {
	for size, ok := range map[int]bool{0: true, minDiskMiB: true, 20 << 10: true, 1: false, -5: false, maxDiskMiB + 1: false} {
		c := testConfig("a")
		c.DiskMiB = size
		if err := c.Validate(); (err == nil) != ok || (err != nil && !strings.Contains(err.Error(), "--disk")) {
			t.Errorf("%d MiB: %v", size, err)
		}
	}
}

func TestPlanTellsTheGuestOfItsDisk(t *testing.T) {
	c := testConfig("a")
	var without Plan
	if planDisk(&without, c); len(without.VM.Drives)+len(without.VM.Cmdline) != 0 {
		t.Errorf("without a disk: %+v", without.VM)
	}
	c.DiskMiB = 1024
	var p Plan
	planDisk(&p, c)
	if want := "sandbox.disk=" + disk.Serial; len(p.VM.Cmdline) != 1 || p.VM.Cmdline[0] != want {
		t.Errorf("the guest is told %q, want %q", p.VM.Cmdline, want)
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
	if err := os.Mkdir(s.Files().Disk(), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, disk.Layers(s.Files().Disk()).File(0), strings.Repeat("x", 6000))
	writeFile(t, disk.Layers(s.Files().Disk()).File(1), strings.Repeat("x", 6000))
	writeFile(t, s.Files().Home()+"/note", "kept")
	if d := s.Info().Disk; d == nil || d.Virtual != 1<<30 || d.Used < 10000 {
		t.Errorf("the disk is shown as %+v", d)
	}

	lock, err := s.Files().Lock()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Reset(t.Context(), false); err == nil || !strings.Contains(err.Error(), "sandbox stop a") {
		t.Errorf("reset of a running sandbox: %v", err)
	}
	lock.Close()

	if err := s.Reset(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.Files().Disk()); !errors.Is(err, os.ErrNotExist) {
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

func TestGuestThatIgnoresItsDiskIsRefused(t *testing.T) {
	v := &supervisor{config: testConfig("a")}
	if err := v.checkDisk(agent.Status{}); err != nil {
		t.Errorf("without a disk: %v", err)
	}
	v.config.DiskMiB = 64
	if err := v.checkDisk(agent.Status{}); err == nil || !strings.Contains(err.Error(), "sandbox image build") {
		t.Errorf("an image without support: %v", err)
	}
	if err := v.checkDisk(agent.Status{Disk: "/dev/vdb"}); err != nil {
		t.Errorf("a guest that took it: %v", err)
	}
}

func TestGuestGoesOnWhenTheFullHostHasSpace(t *testing.T) {
	full := qmp.Event{Event: "BLOCK_IO_ERROR", Data: map[string]any{"nospace": true, "action": "stop"}}
	events := make(chan qmp.Event)
	said := make(chan string)
	looked := 0
	watch := diskWatch{
		retry: time.Millisecond, headroom: 100,
		free: func() (uint64, error) {
			looked++ // the first look finds nothing, the second an error, the third enough
			return []uint64{99, 1000, 100}[min(looked, 3)-1], []error{nil, errors.New("gone"), nil}[min(looked, 3)-1]
		},
		resume: func(context.Context) error {
			if looked < 3 {
				t.Errorf("resumed after look %d", looked)
			}
			events <- qmp.Event{Event: "RESUME"}
			return nil
		},
		full:    func() { said <- "full" },
		running: func() { said <- "running" },
	}
	done := make(chan struct{})
	// resume answers by an event while run waits for it, as QEMU does through its queue.
	queue := make(chan qmp.Event, 8)
	go func() {
		defer close(queue)
		for e := range events {
			queue <- e
		}
	}()
	go func() {
		defer close(done)
		watch.run(t.Context(), queue)
	}()
	// Neither another error nor a pause that somebody else ended is a full host.
	events <- qmp.Event{Event: "BLOCK_IO_ERROR", Data: map[string]any{"nospace": false, "action": "report"}}
	events <- qmp.Event{Event: "RESUME"}
	events <- full
	events <- full // requests that were under way fail, too
	for _, want := range []string{"full", "running"} {
		if got := <-said; got != want {
			t.Fatalf("heard %q, want %q", got, want)
		}
	}
	close(events)
	<-done
}
