package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/boot"
	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/qmp"
)

func TestGuestThatIgnoresItsDiskIsRefused(t *testing.T) {
	v := &supervisor{config: testConfig("a")}
	if err := v.checkDisk(agent.Status{}); err != nil {
		t.Errorf("without a disk: %v", err)
	}
	v.config.DiskMiB = 64
	if err := v.checkDisk(agent.Status{}); err == nil || !strings.Contains(fmt.Sprint(err, remedy.Of(err)), "[rebuild-image]") {
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

func TestGuestIsToldOfItsDiskAndItsTransport(t *testing.T) {
	c := testConfig("a")
	plan := &machine.Plan{Transport: agent.TransportSerial, Image: &image.Image{Manifest: image.Manifest{Agent: image.Agent{Port: 1024}}}}
	if told := bootParams(plan, c, nil); told != (boot.Params{}) {
		t.Errorf("without any of both, the guest is told %+v", told)
	}
	c.DiskMiB, plan.Transport = 1024, agent.TransportVsock
	if told := bootParams(plan, c, nil); told.DiskSerial != layout.DiskDir || told.VsockPort != 1024 {
		t.Errorf("the guest is told %+v", told)
	}
}
