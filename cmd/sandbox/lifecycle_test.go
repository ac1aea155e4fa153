package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/process"
	"github.com/sourcery-zone/sandbox/machine"
)

func TestFiltersOfOneKeyAreAlternatives(t *testing.T) {
	info := machine.Info{Name: "ci-1", State: machine.State{Status: machine.StatusRunning}, Config: machine.Config{Hardware: machine.Hardware{Image: image.ParseRef("debian@0123")}}}
	for filters, want := range map[string]bool{
		"":                              true,
		"status=running":                true,
		"status=stopped status=running": true,
		"status=running name=other":     false,
		"name=ci-* image=debian":        true,
		"image=debian@*":                false,
		"name=":                         false,
	} {
		keep, err := parseFilters(strings.Fields(filters))
		if err != nil {
			t.Fatal(err)
		}
		if keep(info) != want {
			t.Errorf("%q keeps it: %v, want %v", filters, !want, want)
		}
	}
}

func TestOnlyAClearYesIsOne(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, " YES \n": true, "n\n": false, "\n": false, "": false, "yesterday\n": false} {
		if confirm(strings.NewReader(answer), io.Discard, "Sure?") != want {
			t.Errorf("%q is taken for %v", answer, !want)
		}
	}
}

func TestTimingsHaveAClockOfEachSide(t *testing.T) {
	asked := time.Now()
	st := machine.State{Started: asked.Add(20 * time.Millisecond), Timings: []machine.Timing{
		{Stage: machine.StageShares, After: 30 * time.Millisecond}, {Stage: machine.StageAgent, After: time.Second},
	}}
	rows := append(hostTimings(st, asked), guestTimings(map[agent.Stage]time.Duration{
		agent.StageMounted: 700 * time.Millisecond, agent.StageInit: 500 * time.Millisecond,
	})...)
	var out strings.Builder
	if err := printTimings(&out, rows); err != nil {
		t.Fatal(err)
	}
	want := `WHERE   STAGE        AT       STEP      MEANING
host    supervisor   0.020s   +0.020s   the sandbox's supervisor runs
host    shares       0.050s   +0.030s   the file servers of home and shares run
host    agent        1.020s   +0.970s   commands can run
guest   init         0.500s   +0.500s   the first process began
guest   mounted      0.700s   +0.200s   home and shares are mounted
host: since the start was asked for; guest: since its kernel started
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
}

func TestCPUIsThatSinceTheEarlierSample(t *testing.T) {
	now := time.Now()
	one := machine.Stats{Sandbox: "a", Time: now, Processes: []process.Stats{{PID: 1, CPUSeconds: 1}}}
	two := machine.Stats{Sandbox: "a", Time: now.Add(time.Second), Processes: []process.Stats{{PID: 1, CPUSeconds: 1.5}}}
	got := since([]machine.Stats{two, {Sandbox: "new"}}, []machine.Stats{one, {Sandbox: "gone"}})
	if len(got) != 2 || got[0].CPUPercent != 50 || got[1].CPUPercent != 0 {
		t.Errorf("%+v", got)
	}
}
