package qmp_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/qmp"
	"github.com/sourcery-zone/sandbox/qmp/qmptest"
)

// creation is the arguments of blockdev-create, the one job that needs no machine.
func creation(path string) map[string]any {
	return map[string]any{"options": map[string]any{"driver": "file", "filename": path, "size": 1 << 20}}
}

func TestRunJobTellsHowTheJobEnded(t *testing.T) {
	ctx, client, _ := connectQEMU(t)
	dir := t.TempDir()
	for range 2 { // the id is free again
		if err := client.RunJob(ctx, "blockdev-create", creation(filepath.Join(dir, "disk")), "create"); err != nil {
			t.Fatal(err)
		}
	}
	err := client.RunJob(ctx, "blockdev-create", creation(filepath.Join(dir, "none", "disk")), "create")
	var failed *qmp.JobError
	if !errors.As(err, &failed) || failed.ID != "create" || failed.Desc == "" {
		t.Errorf("a job that fails: %v", err)
	}
	if err := client.RunJob(ctx, "blockdev-create", map[string]any{}, "create"); !qmp.IsClass(err, qmp.ClassGenericError) {
		t.Errorf("a job that does not start: %v", err)
	}
	if jobs, err := client.Jobs(ctx); err != nil || len(jobs) != 0 {
		t.Errorf("jobs that are left: %v, %v", jobs, err)
	}
}

func status(id, status string) string {
	return fmt.Sprintf(`{"event": "JOB_STATUS_CHANGE", "data": {"id": %q, "status": %q}, "timestamp": {"seconds": 1, "microseconds": 1}}`, id, status)
}

// A block job that dismisses itself is in no list when it is asked for.
func TestRunJobBelievesTheEventsOfJobsThatAreGone(t *testing.T) {
	client := qmptest.Connect(t, func(m *qmptest.Monitor) {
		c := m.Next()
		m.Say(status("mirror", "concluded") + status("mirror", "null")) // of an older one
		m.Say(status("mirror", "created") + status("other", "null") + status("mirror", "ready"))
		m.Reply(c, `{}`)
		if c := m.Next(); c.Execute != "job-complete" {
			t.Errorf("got %s", c.Execute)
		} else {
			m.Reply(c, `{}`)
		}
		m.Say(`{"event": "BLOCK_JOB_COMPLETED", "data": {"device": "mirror", "error": "No space left on device"}, "timestamp": {"seconds": 1, "microseconds": 1}}`)
		m.Say(status("mirror", "concluded") + status("mirror", "null"))
		m.Reply(m.Next(), `[]`) // query-jobs
	})
	err := client.RunJob(within(t, time.Minute), "blockdev-mirror", nil, "mirror")
	var failed *qmp.JobError
	if !errors.As(err, &failed) || failed.Desc != "No space left on device" {
		t.Errorf("got %v", err)
	}
}

func TestRunJobCancelsWhatNobodyWaitsFor(t *testing.T) {
	ctx, cancel := context.WithCancel(within(t, time.Minute))
	cancelled := make(chan string, 3)
	client := qmptest.Connect(t, func(m *qmptest.Monitor) {
		c := m.Next()
		m.Say(status("save", "created"))
		cancel() // the job runs already, and its caller does not know yet
		m.Reply(c, `{}`)
		for range 3 {
			c := m.Next()
			cancelled <- c.Execute
			switch c.Execute {
			case "job-cancel":
				m.Say(status("save", "concluded"))
				m.Reply(c, `{}`)
			case "query-jobs":
				m.Reply(c, `[{"id": "save", "status": "concluded", "error": "cancelled"}]`)
			default:
				m.Reply(c, `{}`)
			}
		}
	})
	if err := client.RunJob(ctx, "snapshot-save", map[string]string{"tag": "x"}, "save"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := fmt.Sprintf("%s %s %s", <-cancelled, <-cancelled, <-cancelled); got != "job-cancel query-jobs job-dismiss" {
		t.Errorf("got %s", got)
	}
}
