package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/google/renameio/v2"
)

// figure is one result. Less is better in all of them.
type figure struct {
	Name  string   `json:"name"`
	Value float64  `json:"value"`
	Unit  string   `json:"unit"` // "ratio", "MiB", "ms", "s", "s/min"
	Goal  *float64 `json:"goal"` // null: none was set
	Met   *bool    `json:"met"`  // null without a goal

	detail string // what the value was computed from
}

// with sets the goal.
func (f figure) with(goal float64) figure {
	met := f.Value <= goal
	f.Goal, f.Met = &goal, &met
	return f
}

// ratio divides the median of ours by that of theirs.
func ratio(name string, ours, theirs series) figure {
	return figure{
		Name: name, Unit: "ratio", Value: ours.median().Seconds() / theirs.median().Seconds(),
		detail: fmt.Sprintf("%s / %s", ours, theirs),
	}
}

// series is one thing, measured several times.
type series []time.Duration

// median is the middle of the sorted values, or of an even number the mean of
// the two in the middle. A series must not be empty.
func (s series) median() time.Duration {
	sorted := slices.Sorted(slices.Values(s))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// String shows the median and how far the values lie apart.
func (s series) String() string {
	return fmt.Sprintf("%s (%s-%s, n=%d)", short(s.median()), short(slices.Min(s)), short(slices.Max(s)), len(s))
}

func short(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

func printTable(w io.Writer, figures []figure) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FIGURE\tVALUE\tUNIT\tGOAL\tMET\tFROM (median, least-most)")
	for _, f := range figures {
		goal, met := "-", "-"
		if f.Goal != nil {
			goal, met = fmt.Sprintf("<= %.4g", *f.Goal), map[bool]string{true: "yes", false: "NO"}[*f.Met]
		}
		fmt.Fprintf(t, "%s\t%.3g\t%s\t%s\t%s\t%s\n", f.Name, f.Value, f.Unit, goal, met, f.detail)
	}
	return t.Flush()
}

// writeFigures replaces the file at path.
func writeFigures(path string, figures []figure) error {
	data, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(path, append(data, '\n'), 0o644)
}
