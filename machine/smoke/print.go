package smoke

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/jstemmer/go-junit-report/v2/junit"

	"github.com/sourcery-zone/sandbox/machine"
)

// columns are the stages in the table, each with its heading.
var columns = []string{machine.StageQEMU, machine.StageHello, machine.StageAgent, machine.StageSystem, StageOff}

// WriteTable writes a line for each boot, and below them what did not pass.
func (r Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintf(t, "IMAGE\tBOOT\tACCEL\t%s\tTOTAL\tRESULT\n", strings.ToUpper(strings.Join(columns, "\t")))
	for _, b := range r.Boots {
		fmt.Fprintf(t, "%s\t%d\t%s\t", b.Image, b.Number, orDash(b.Accel))
		for _, name := range columns {
			at := "-"
			if seconds, reached := b.stage(name); reached {
				at = fmt.Sprintf("%.1fs", seconds)
			}
			fmt.Fprintf(t, "%s\t", at)
		}
		fmt.Fprintf(t, "%.1fs\t%s: %s\n", b.Seconds, b.Outcome, b.counts())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, b := range r.Boots {
		if err := b.writeProblems(w); err != nil {
			return err
		}
	}
	return nil
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// counts says how many checks had which outcome.
func (b Boot) counts() string {
	var parts []string
	for _, o := range []Outcome{Passed, Failed, Unfit, Skipped} {
		if n := b.count(o); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, o))
		}
	}
	return strings.Join(parts, ", ")
}

func (b Boot) writeProblems(w io.Writer) error {
	for _, c := range b.Results {
		if c.Outcome == Passed {
			continue
		}
		text := c.Message
		if c.Outcome != Skipped && c.Output != "" {
			text += "\n" + strings.TrimRight(c.Output, "\n")
		}
		if _, err := fmt.Fprintf(w, "\n%s: %s %s: %s\n", b, c.Name, c.Outcome, strings.ReplaceAll(text, "\n", "\n   ")); err != nil {
			return err
		}
	}
	if b.Artifacts == "" {
		return nil
	}
	_, err := fmt.Fprintf(w, "\n%s: logs are in %s\n", b, b.Artifacts)
	return err
}

// WriteJSON writes the report as one JSON object.
func (r Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// WriteJUnit writes the report in the XML form that CI systems take from
// JUnit: a test suite for each boot and a test case for each check. A failure
// there is a bad image, an error an unfit machine.
func (r Report) WriteJUnit(w io.Writer) error {
	suites := junit.Testsuites{Name: "sandbox smoke"}
	for i, b := range r.Boots {
		s := junit.Testsuite{ID: i, Name: b.String(), Package: b.Image, Time: xmlSeconds(b.Seconds)}
		s.SetTimestamp(b.Began)
		for _, p := range []junit.Property{
			{Name: "accel", Value: b.Accel},
			{Name: "machine", Value: b.Machine},
			{Name: "qemu", Value: b.QEMU},
			{Name: "transport", Value: b.Transport},
			{Name: "artifacts", Value: b.Artifacts},
		} {
			if p.Value != "" {
				s.AddProperty(p.Name, p.Value)
			}
		}
		for _, stage := range b.Stages {
			s.AddProperty("stage."+stage.Name, xmlSeconds(stage.Seconds))
		}
		for _, c := range b.Results {
			s.AddTestcase(c.testcase(b.Image))
		}
		suites.AddSuite(s)
	}
	if _, err := io.WriteString(w, `<?xml version="1.0" encoding="UTF-8"?>`+"\n"); err != nil {
		return err
	}
	return suites.WriteXML(w)
}

func (c Result) testcase(class string) junit.Testcase {
	t := junit.Testcase{Name: c.Name, Classname: class, Time: xmlSeconds(c.Seconds)}
	why := &junit.Result{Message: c.Message, Data: c.Output}
	switch c.Outcome {
	case Failed:
		t.Failure = why
	case Unfit:
		t.Error = why
	case Skipped:
		t.Skipped = why
	case Passed:
		if c.Output != "" {
			t.SystemOut = &junit.Output{Data: c.Output}
		}
	}
	return t
}

func xmlSeconds(s float64) string { return fmt.Sprintf("%.3f", s) }
