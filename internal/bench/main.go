package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sourcery-zone/sandbox/machine/supervisor"
)

// settings are the flags.
type settings struct {
	sandbox string        // the program to measure
	image   string        // empty: the default one
	beside  string        // another image, or none
	json    string        // file for the figures
	only    []string      // names of measurements; empty: all
	nested  bool          // measure under KVM in an emulated guest
	repeat  int           // boots of each guest
	calls   int           // commands in a running guest
	files   int           // of the repository that is put on shares
	idle    time.Duration // how long a guest is watched doing nothing
	timeout time.Duration // for one guest to get ready
}

// measurement yields one or more figures.
type measurement struct {
	name string
	run  func(context.Context, *bench) ([]figure, error)
}

func measurements() []measurement {
	return []measurement{
		{"ready-overhead", readyOverhead},
		{"ready-vs-microvm-nix", readyVsMicroVMNix},
		{"exec-vs-ssh", execVsSSH},
		{"system-ready", systemReady},
		{"beside", beside},
		{"supervisor-rss", supervisorCost},
		{"boot-parallel", bootParallel},
		{"restore", restore},
		{"warm-start", warmStart},
		{"fork", fork},
		{"fork-memory", forkMemory},
		{"net", networks},
		{"net-start", networkStart},
		{"net-read", networkReading},
		{"share", shares},
		{"try", try},
		{"secret", secrets},
	}
}

func main() {
	supervisor.Main()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func parse(args []string) (settings, error) {
	var o settings
	var only string
	var names []string
	for _, m := range measurements() {
		names = append(names, m.name)
	}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&o.sandbox, "sandbox", "bin/sandbox", "the program to measure")
	f.StringVar(&o.image, "image", os.Getenv("SANDBOX_IMAGE"), "the image to start (default: the default image)")
	f.StringVar(&o.beside, "beside", "", "another image, with which the measurement beside compares the image (without it, there is nothing to compare)")
	f.BoolVar(&o.nested, "nested", false, fmt.Sprintf("measure under KVM, in an emulated guest that has it; unless written, the other flags are then those in parentheses (-only %s)", strings.Join(nestedNames, ",")))
	f.StringVar(&o.json, "json", "bench.json", "the file that gets the figures")
	f.StringVar(&only, "only", "", "measure only these, separated by commas: "+strings.Join(names, ","))
	f.IntVar(&o.repeat, "repeat", 3, "how often each guest is booted (-nested: 2)")
	f.IntVar(&o.calls, "calls", 20, "how often each command is run in a running guest (-nested: 5)")
	f.IntVar(&o.files, "files", 1000, "how many files the repository and the archive have that are put on shares")
	f.DurationVar(&o.idle, "idle", time.Minute, "how long a guest is watched while it does nothing")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long a guest may take to get ready (-nested: 2h)")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 || o.repeat < 1 || o.calls < 1 || o.files < 1 || o.idle <= 0 {
		return o, errors.New("there is an argument too many, or a number below 1: go run ./internal/bench -help shows the flags")
	}
	if only != "" {
		o.only = strings.Split(only, ",")
	}
	if o.beside == "" && slices.Contains(o.only, "beside") || o.beside != "" && o.nested {
		return o, errors.New("the measurement beside needs the other image, as in -beside debian, and cannot be -nested")
	}
	if o.nested {
		o.suitNested(f)
	}
	for _, name := range o.only {
		if !slices.Contains(names, name) {
			return o, fmt.Errorf("there is no measurement %q: choose from %s", name, strings.Join(names, ", "))
		}
	}
	return o, nil
}

// run makes every measurement, also after one has failed.
func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	b, err := prepare(ctx, o)
	if err != nil {
		return err
	}
	defer b.close()
	if b.nested {
		return runNested(ctx, b)
	}
	fmt.Println(b.describe())
	var figures []figure
	var failed []string
	for _, m := range measurements() {
		if len(o.only) > 0 && !slices.Contains(o.only, m.name) {
			continue
		}
		start := time.Now()
		got, err := m.run(ctx, b)
		if err != nil {
			err = fmt.Errorf("%s: %w", m.name, err)
			fmt.Fprintf(os.Stderr, "bench: %v\n", err) // minutes may pass until the end
			failed = append(failed, m.name)
		}
		figures = append(figures, got...)
		fmt.Fprintf(os.Stderr, "%s: measured in %s\n", m.name, time.Since(start).Round(time.Second))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	err = errors.Join(printTable(os.Stdout, figures), writeFigures(o.json, figures))
	if len(failed) > 0 {
		err = errors.Join(err, fmt.Errorf("these were not measured, for the reasons above: %s", strings.Join(failed, ", ")))
	}
	return err
}
