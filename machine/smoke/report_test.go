package smoke

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jstemmer/go-junit-report/v2/junit"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/machine"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sample has a boot of each outcome.
func sample() Report {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	good := Boot{
		Image: "debian@0123456789ab", Number: 1, Began: began, Accel: "kvm", Machine: "microvm", QEMU: "10.0.2", Transport: "vsock", Seconds: 5.25,
		Stages: []Stage{{machine.StageShares, 0.0625}, {machine.StageQEMU, 0.125}, {machine.StageHello, 0.5}, {machine.StageAgent, 0.75}, {machine.StageSystem, 2.5}, {StageOff, 0.25}},
	}
	good.add(Result{Name: "agent", Outcome: Passed, Seconds: 0.125})
	good.add(Result{Name: "dns", Outcome: Skipped, Message: "this machine has no DNS", Seconds: 0.5})
	bad := Boot{
		Image: "debian@0123456789ab", Number: 2, Began: began, Accel: "tcg", Machine: "q35", QEMU: "7.2.22", Transport: "serial", Seconds: 8,
		Stages: good.Stages[:4], Artifacts: "logs/debian@0123456789ab-2",
	}
	bad.add(Result{Name: "git", Outcome: Passed, Output: "git version 2.47\n"})
	bad.add(Result{Name: "lint", Outcome: Failed, Message: "the command ended with exit status 3", Output: "\x1b[31m<red> & ]]> \xff\x00\n", Seconds: 1})
	lost := Boot{Image: "nixos@ba9876543210", Number: 1, Began: began, Seconds: 1}
	lost.add(Result{Name: resultAgent, Outcome: Unfit, Message: "QEMU is missing:\ninstall it", Seconds: 1})
	boots := []Boot{good, bad, lost}
	for i := range boots {
		boots[i].judge()
	}
	return reportOf(boots)
}

func TestReports(t *testing.T) {
	r := sample()
	for name, write := range map[string]func(io.Writer) error{
		"table.txt": r.WriteTable, "junit.xml": r.WriteJUnit, "report.json": r.WriteJSON,
	} {
		var got bytes.Buffer
		if err := write(&got); err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%s differs; got:\n%s", name, got.Bytes())
		}
	}
}

func TestReportsCanBeReadBack(t *testing.T) {
	r := sample()
	var text bytes.Buffer
	if err := r.WriteJUnit(&text); err != nil {
		t.Fatal(err)
	}
	var suites junit.Testsuites
	if err := xml.Unmarshal(text.Bytes(), &suites); err != nil {
		t.Fatal(err)
	}
	if suites.Tests != 5 || suites.Failures != 1 || suites.Errors != 1 || suites.Skipped != 1 || len(suites.Suites) != 3 {
		t.Errorf("%+v", suites)
	}
	if got := suites.Suites[1].Testcases[1].Failure.Data; got != `<red> & ]]> \xff\x00`+"\n" {
		t.Errorf("the output is %q", got)
	}
	text.Reset()
	if err := r.WriteJSON(&text); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(text.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(back) != fmt.Sprint(r) {
		t.Errorf("got %+v", back)
	}
}

func TestOneFailureIsProofAndOtherwiseTheMachineIsInDoubt(t *testing.T) {
	for _, test := range []struct {
		results []Outcome
		want    Outcome
	}{
		{[]Outcome{Passed, Skipped}, Passed},
		{[]Outcome{Unfit, Passed}, Unfit},
		{[]Outcome{Unfit, Failed, Unfit}, Failed},
	} {
		var one Boot
		var boots []Boot
		for _, o := range test.results {
			one.add(Result{Outcome: o})
			var b Boot
			b.add(Result{Outcome: o})
			b.judge()
			boots = append(boots, b)
		}
		one.judge()
		if got := reportOf(boots).Outcome; one.Outcome != test.want || got != test.want {
			t.Errorf("%v: in one boot %s, in several %s, want %s", test.results, one.Outcome, got, test.want)
		}
	}
}

func TestBootsAreRepeatedSideBySideAndReportedInOrder(t *testing.T) {
	const jobs = 3
	targets := []Target{{Ref: image.Ref{Name: "a"}}, {Ref: image.Ref{Name: "b"}}, {Ref: image.Ref{Name: "a"}}}
	var running, verified atomic.Int32
	// The first boots wait for each other: they must run at once.
	together := make(chan struct{})
	var began sync.Once
	boot := func(t Target, number int, verify func() error) Boot {
		n := running.Add(1)
		defer running.Add(-1)
		if n == jobs {
			began.Do(func() { close(together) })
		}
		<-together
		b := Boot{Image: t.name(), Number: number}
		outcome := Passed
		if n > jobs || verify() == nil {
			outcome = Failed
		}
		b.add(Result{Outcome: outcome})
		b.judge()
		return b
	}
	r := runAll(targets, Options{Repeat: 4, Jobs: jobs}, boot, func(Target) error {
		verified.Add(1)
		return errors.New("always")
	})
	var got string
	for _, b := range r.Boots {
		got += fmt.Sprintf("%s%d ", b.Image, b.Number)
	}
	if want := "a1 a2 a3 a4 b1 b2 b3 b4 a5 a6 a7 a8 "; got != want || r.Outcome != Passed || verified.Load() != 3 {
		t.Errorf("got %s, %s, verified %d times", got, r.Outcome, verified.Load())
	}
}
