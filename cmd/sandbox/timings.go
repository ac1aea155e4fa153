package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/terminal"
	"github.com/sourcery-zone/sandbox/machine"
)

func timingsFlag() cli.Flag {
	return &cli.BoolFlag{Name: "timings", Usage: "show on standard error when the start reached which stage"}
}

// timing is one line of the table: when a stage was reached, on its own clock.
type timing struct {
	side, stage string
	at          time.Duration
	meaning     string
}

// timingsPatience is how long a guest that was just ready may take to say more.
const timingsPatience = 10 * time.Second

// showTimings prints the stages of the start that was asked for at asked.
func showTimings(ctx context.Context, w io.Writer, s *machine.Sandbox, asked time.Time) error {
	client, err := s.Dial(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, timingsPatience, fmt.Errorf("the guest does not say them within %v", timingsPatience))
	defer cancel()
	status, err := client.Status(ctx)
	if err != nil {
		return err
	}
	rows := append(hostTimings(s.State(), asked), guestTimings(status.Reached)...)
	return printTimings(w, rows)
}

// hostTimings are counted from the moment at which the start was asked for.
func hostTimings(st machine.State, asked time.Time) []timing {
	meanings := map[string]string{
		machine.StageShares: "the file servers of home and shares run",
		machine.StageQEMU:   "QEMU answers on its monitor",
		machine.StageHello:  "the guest's agent answers",
		machine.StageAgent:  "commands can run",
		machine.StageSystem: "the image's services run",
	}
	before := max(st.Started.Sub(asked), 0)
	rows := []timing{{"host", "supervisor", before, "the sandbox's supervisor runs"}}
	for _, t := range st.Timings {
		rows = append(rows, timing{"host", t.Stage, before + t.After, meanings[t.Stage]})
	}
	return rows
}

// guestTimings are counted from the start of the guest's kernel.
func guestTimings(reached map[agent.Stage]time.Duration) []timing {
	meanings := map[agent.Stage]string{
		agent.StageInit:       "the first process began",
		agent.StageServing:    "the agent can be reached",
		agent.StageStore:      "the image's file system is mounted",
		agent.StageConfigured: "the host's configuration arrived",
		agent.StageMounted:    "home and shares are mounted",
		agent.StageNetwork:    "the network has an address",
		agent.StageAgent:      "commands can run",
		agent.StageSystem:     "the image's services run",
	}
	var rows []timing
	for stage, at := range reached {
		rows = append(rows, timing{"guest", terminal.Line(string(stage)), at, meanings[stage]})
	}
	slices.SortFunc(rows, func(a, b timing) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.stage, b.stage))
	})
	return rows
}

func printTimings(w io.Writer, rows []timing) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "WHERE\tSTAGE\tAT\tSTEP\tMEANING")
	var last timing
	for _, r := range rows {
		if r.side != last.side {
			last = timing{} // each side has a clock of its own
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t+%s\t%s\n", r.side, r.stage, seconds(r.at), seconds(r.at-last.at), r.meaning)
		last = r
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "host: since the start was asked for; guest: since its kernel started")
	return err
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3fs", d.Seconds()) }
