package machine

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/process"
	"github.com/sourcery-zone/sandbox/internal/tree"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

func TestStatsCountTheSupervisorsProcesses(t *testing.T) {
	s := create(t, testHost(t), "a")
	fakeSupervisor(t, s, "sleep 600 & echo; wait", func(st *State) { st.Status = StatusStarting })
	stats, err := s.Stats(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if len(stats.Processes) != 2 || stats.RSSBytes == 0 || stats.DiskBytes == 0 || stats.Problem != "" {
		t.Errorf("%+v, want the shell and its child", stats)
	}
}

func TestStatsOfWhatDoesNotRun(t *testing.T) {
	s := create(t, testHost(t), "a")
	stats, err := s.Stats(context.Background())
	if err != nil || len(stats.Processes) != 0 || stats.Guest != nil || stats.Status != StatusCreated {
		t.Errorf("%+v, %v", stats, err)
	}
}

func TestCPUPercentIsBetweenTheSamples(t *testing.T) {
	now := time.Now()
	earlier := Stats{Time: now, Processes: []process.Stats{{PID: 1, CPUSeconds: 5}, {PID: 2, CPUSeconds: 7}}}
	later := Stats{Time: now.Add(2 * time.Second), Processes: []process.Stats{{PID: 1, CPUSeconds: 6}, {PID: 3, CPUSeconds: 2}}}
	if got := later.Since(earlier).CPUPercent; got != 150 {
		t.Errorf("%v%%, want 150%%", got)
	}
	if got := later.Since(later).CPUPercent; got != 0 {
		t.Errorf("%v%% in no time", got)
	}
}

func TestGuestsNumbersAreRead(t *testing.T) {
	dev := `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    9999      10    0    0    0     0          0         0     9999      10    0    0    0     0       0          0
  eth0: 1500       7    0    0    0     0          0         0      250       3    0    0    0     0       0          0
`
	if in, out := netBytes([]byte(dev)); in != 1500 || out != 250 {
		t.Errorf("received %d, sent %d", in, out)
	}
	if got := process.Kibibytes([]byte("MemTotal:  100 kB\nMemFree: 7 kB\n"), "MemFree:"); got != 7<<10 {
		t.Errorf("%d bytes are free", got)
	}
}

func TestDiskUseCountsLinksOnceAndHolesNot(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := tree.Used(dir)
	if err != nil || before < 1<<20 {
		t.Fatalf("%d bytes (%v)", before, err)
	}
	if err := os.Link(file, file+"2"); err != nil {
		t.Fatal(err)
	}
	sparse := filepath.Join(dir, "sparse")
	if err := os.WriteFile(sparse, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(sparse, 1<<30); err != nil {
		t.Fatal(err)
	}
	if after, err := tree.Used(dir); err != nil || after > before+64<<10 {
		t.Errorf("%d bytes after %d (%v)", after, before, err)
	}
}

func TestPruneTakesOnlyWhatIsOver(t *testing.T) {
	h := testHost(t)
	for name, st := range map[string]State{
		"stopped": {Status: StatusStopped}, "killed": {Status: StatusRunning}, "started-since": {Status: StatusStopped},
		"broken": {}, "new": {Status: StatusCreated},
	} {
		if err := durable.WriteJSON(create(t, h, name).Files().Path(layout.StateFile), st); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(h.mustGet(t, "broken").Files().Path(layout.ConfigFile)); err != nil {
		t.Fatal(err)
	}
	running := create(t, h, "running")
	fakeSupervisor(t, running, sleeper, nil)

	left, err := h.Leftovers(context.Background())
	if err != nil || len(left) != 4 {
		t.Fatalf("%d leftovers (%v), want 4", len(left), err)
	}
	fakeSupervisor(t, h.mustGet(t, "started-since"), sleeper, nil)
	for _, l := range left {
		removed, err := l.Prune()
		if err != nil || removed == (l.Sandbox.Name == "started-since") {
			t.Errorf("%s: removed %v (%v)", l.Sandbox.Name, removed, err)
		}
		if again, err := l.Prune(); err != nil || again {
			t.Errorf("%s: removed a second time: %v (%v)", l.Sandbox.Name, again, err)
		}
	}
	all, err := h.List()
	if err != nil || len(all) != 3 {
		t.Errorf("%d sandboxes are left (%v), want 3", len(all), err)
	}
}
