package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	units "github.com/docker/go-units"
	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/sourcery-zone/sandbox/internal/terminal"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
)

func statsCommand() *cli.Command {
	return &cli.Command{
		Name:      "stats",
		Usage:     "show what sandboxes take of the machine",
		ArgsUsage: "[NAME...]",
		Description: `Without NAME, all running sandboxes are shown. CPU is that of QEMU, the file
servers and the supervisor over --interval, 100% being one CPU; MEMORY is what
these take on the host; GUEST is the guest's own view, used of total, without
what sandbox resize has taken away. DISK is what the sandbox's directory occupies, QUOTA what the share
or home holds whose quota is nearest, and that, and NET what the guest received and sent.

EXAMPLES
   sandbox stats
   sandbox stats --watch work
   sandbox stats --json | jq '.[].pssBytes'`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "go on until Ctrl-C"},
			&cli.DurationFlag{Name: "interval", Value: time.Second, Usage: "`TIME` between two samples"},
			&cli.BoolFlag{Name: "json", Usage: "print a JSON array, with --watch one in each line"},
		},
		OnUsageError: usageError,
		Action:       statsAction,
	}
}

func statsAction(c *cli.Context) error {
	if c.Duration("interval") < 100*time.Millisecond {
		return usage("--interval must be at least 100ms: the kernel counts time in hundredths of a second")
	}
	host, err := machine.Open()
	if err != nil {
		return err
	}
	earlier, err := sample(c, host)
	if err != nil {
		return err
	}
	for {
		select {
		case <-c.Context.Done():
			return nil
		case <-time.After(c.Duration("interval")):
		}
		now, err := sample(c, host)
		if errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := printStats(c, since(now, earlier)); err != nil || !c.Bool("watch") {
			return err
		}
		earlier = now
	}
}

// sample measures the sandboxes that the arguments name, all at once, so that
// one whose guest is slow to answer does not delay the others.
func sample(c *cli.Context, host *machine.Host) ([]machine.Stats, error) {
	sandboxes, err := statsOf(c, host)
	if err != nil {
		return nil, err
	}
	stats := make([]machine.Stats, len(sandboxes))
	group, ctx := errgroup.WithContext(c.Context)
	for i, s := range sandboxes {
		group.Go(func() (err error) {
			stats[i], err = s.Stats(ctx)
			return err
		})
	}
	return stats, group.Wait()
}

func statsOf(c *cli.Context, host *machine.Host) (chosen []*machine.Sandbox, err error) {
	if c.NArg() > 0 {
		var errs []error
		for _, name := range c.Args().Slice() {
			s, err := host.Get(name)
			chosen, errs = append(chosen, s), append(errs, err)
		}
		return chosen, errors.Join(errs...)
	}
	all, err := host.List()
	for _, s := range all {
		if s.State().Status == machine.StatusRunning {
			chosen = append(chosen, s)
		}
	}
	return chosen, err
}

func since(now, earlier []machine.Stats) []machine.Stats {
	before := map[string]machine.Stats{}
	for _, e := range earlier {
		before[e.Sandbox] = e
	}
	result := make([]machine.Stats, len(now)) // not nil: an empty JSON array
	for i, n := range now {
		result[i] = n
		if e, ok := before[n.Sandbox]; ok {
			result[i] = n.Since(e)
		}
	}
	return result
}

func printStats(c *cli.Context, stats []machine.Stats) error {
	switch {
	case c.Bool("json") && c.Bool("watch"):
		return printJSONLine(c.App.Writer, stats)
	case c.Bool("json"):
		return printJSON(c.App.Writer, stats)
	}
	if c.Bool("watch") && isTerminal(os.Stdout) {
		fmt.Fprint(os.Stdout, "\x1b[H\x1b[2J") // the new table in the place of the old one
	}
	return statsTable(c.App.Writer, stats)
}

func statsTable(w io.Writer, stats []machine.Stats) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "NAME\tSTATUS\tCPU\tCPU TIME\tMEMORY\tGUEST\tDISK\tQUOTA\tNET IN / OUT")
	for _, s := range stats {
		cpu, cpuTime, memory, guest, net := "-", "-", "-", "-", "-"
		if len(s.Processes) > 0 {
			cpu = fmt.Sprintf("%.1f%%", s.CPUPercent)
			cpuTime = fmt.Sprintf("%.1fs", s.CPUSeconds)
			memory = bytesText(s.RSSBytes)
			if s.PSSBytes > 0 {
				memory = bytesText(s.PSSBytes)
			}
		}
		if g := s.Guest; g != nil {
			total := g.MemoryTotalBytes - g.BalloonBytes // the guest takes what is in the balloon for used
			guest = bytesText(max(total-g.MemoryAvailableBytes, 0)) + " / " + bytesText(total)
			net = bytesText(g.NetReceivedBytes) + " / " + bytesText(g.NetSentBytes)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Sandbox, s.Status, cpu, cpuTime, memory, guest, bytesText(s.DiskBytes), quotaText(s.Quotas), net)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, s := range stats {
		if s.Problem != "" {
			fmt.Fprintf(notes(), "sandbox: %s: %s\n", s.Sandbox, terminal.Line(s.Problem))
		}
	}
	return nil
}

// quotaText is the quota of which least is left.
func quotaText(quotas []api.Quota) string {
	if len(quotas) == 0 {
		return "-"
	}
	q := slices.MinFunc(quotas, func(a, b api.Quota) int {
		return cmp.Compare(a.LimitBytes-a.UsedBytes, b.LimitBytes-b.UsedBytes)
	})
	return bytesText(q.UsedBytes) + " / " + bytesText(q.LimitBytes)
}

func bytesText(n int64) string { return units.BytesSize(float64(n)) }
