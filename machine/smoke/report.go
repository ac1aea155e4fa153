package smoke

import (
	"fmt"
	"time"

	"github.com/sourcery-zone/sandbox/internal/terminal"
	"github.com/sourcery-zone/sandbox/machine"
)

// Outcome is what a check came to.
type Outcome string

// The outcomes.
const (
	Passed  Outcome = "passed"
	Failed  Outcome = "failed"  // the image is bad
	Skipped Outcome = "skipped" // this image or this machine has nothing to check
	Unfit   Outcome = "unfit"   // the machine got in the way: nothing is known of the image
)

// Result is the outcome of one check.
type Result struct {
	Name    string  `json:"name"`
	Outcome Outcome `json:"outcome"`
	Message string  `json:"message,omitempty"` // why it did not pass
	Output  string  `json:"output,omitempty"`  // what the check's program printed
	Seconds float64 `json:"seconds"`
}

// Stage is a point of a boot.
type Stage struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"` // since the start was asked for; of StageOff: since the power-down was
}

// StageOff follows the stages of a start: the guest has powered itself off.
const StageOff = "off"

// Boot is one boot of one image.
type Boot struct {
	Image     string    `json:"image"`
	Number    int       `json:"number"` // of the boots of this image, from 1
	Began     time.Time `json:"began"`
	Accel     string    `json:"accel,omitempty"`
	Machine   string    `json:"machine,omitempty"`
	QEMU      string    `json:"qemuVersion,omitempty"`
	Transport string    `json:"transport,omitempty"`
	Outcome   Outcome   `json:"outcome"`
	Seconds   float64   `json:"seconds"`
	Stages    []Stage   `json:"stages"`
	Results   []Result  `json:"checks"`
	Artifacts string    `json:"artifacts,omitempty"` // directory
}

// Report is what all boots came to.
type Report struct {
	Outcome Outcome `json:"outcome"` // Passed, Failed or Unfit
	Boots   []Boot  `json:"boots"`
}

// String names the boot.
func (b Boot) String() string { return fmt.Sprintf("%s boot %d", b.Image, b.Number) }

// stage returns when a stage was reached, and whether it was.
func (b Boot) stage(name string) (seconds float64, reached bool) {
	for _, s := range b.Stages {
		if s.Name == name {
			return s.Seconds, true
		}
	}
	return 0, false
}

// count returns how many checks had an outcome.
func (b Boot) count(o Outcome) int {
	n := 0
	for _, r := range b.Results {
		if r.Outcome == o {
			n++
		}
	}
	return n
}

// add notes a result. Its texts may come from the guest, and go to terminals and
// to XML, which cannot hold what a terminal would obey.
func (b *Boot) add(r Result) {
	r.Message, r.Output = terminal.Text(r.Message), terminal.Text(r.Output)
	b.Results = append(b.Results, r)
}

// judge sets the boot's outcome. That one check has failed is proof enough,
// whatever else could not be found out.
func (b *Boot) judge() {
	switch {
	case b.count(Failed) > 0:
		b.Outcome = Failed
	case b.count(Unfit) > 0:
		b.Outcome = Unfit
	default:
		b.Outcome = Passed
	}
}

// describe notes what the boot ran on.
func (b *Boot) describe(st machine.State) {
	b.Accel, b.Machine, b.QEMU, b.Transport = st.Accel, st.Machine, st.QEMUVer, string(st.Transport)
}

// reportOf sums up boots as judge does checks.
func reportOf(boots []Boot) Report {
	r := Report{Outcome: Passed, Boots: boots}
	for _, b := range boots {
		if b.Outcome == Failed || (b.Outcome == Unfit && r.Outcome != Failed) {
			r.Outcome = b.Outcome
		}
	}
	return r
}
