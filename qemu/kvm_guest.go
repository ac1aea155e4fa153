package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/confine"
	"github.com/sourcery-zone/sandbox/internal/process"
)

// probeFailure says that the probe guest ran and did not do what it should.
type probeFailure struct{ what string }

func (e *probeFailure) Error() string { return e.what }

// probeGuest is a firmware image that is a whole guest: it goes through what an operating system does
// early and then ends the machine. Short loops of plain instructions are part of it and matter most:
// where KVM cannot enter the guest on the processor, it emulates each instruction correctly and a
// thousand times too slowly.
type probeGuest struct {
	image  []byte
	exit   int         // QEMU's exit status after success
	steps  []probeStep // in order
	device func(a *argv, chardev string)
}

// probeStep is a letter that the guest writes and what it has reached by then.
type probeStep struct {
	letter byte
	name   string
}

func newProbeGuest(arch Arch) (probeGuest, error) {
	switch arch {
	case X86_64:
		return probeGuest{
			image: x86ProbeImage(),
			exit:  x86ProbeExit<<1 | 1,
			steps: []probeStep{
				{'r', "real mode"},
				{'p', "protected mode"},
				{'l', "long mode"},
				{'f', "page faults"},
				{'t', "timer interrupts"},
				{'.', "its end"},
			},
			device: func(a *argv, chardev string) {
				a.option("-device", "isa-debugcon", "iobase", "0xe9", "chardev", chardev)
				a.option("-device", "isa-debug-exit", "iobase", "0xf4", "iosize", "1")
			},
		}, nil
	case AArch64:
		return probeGuest{
			image: aarch64ProbeImage(),
			steps: []probeStep{
				{'r', "its first instruction"}, {'m', "virtual memory"}, {'t', "the timer"}, {'.', "its end"},
			},
			device: func(a *argv, chardev string) { a.option("-serial", "chardev:"+chardev) },
		}, nil
	}
	return probeGuest{}, fmt.Errorf("there is no probe guest for the architecture %q", arch)
}

// args returns the command line with the same processor, machine type and confinement as a sandbox's.
func (g probeGuest) args(caps Capabilities, arch Arch, accel Accel, image string) []string {
	a := &argv{}
	addFixed(a)
	c := Config{Arch: arch, Accel: accel}
	machine := c.ChooseMachine(caps)
	a.option("-machine", string(machine), c.machineProperties(machine)...)
	c.addProcessor(a)
	a.option("-m", "", "size", "16M")
	a.flag("-bios", image)
	chardev := a.id("steps")
	a.option("-chardev", "stdio", "id", chardev, "signal", "off")
	g.device(a, chardev)
	return a.args
}

// complete is what the guest writes if all goes well.
func (g probeGuest) complete() string {
	var b strings.Builder
	for _, s := range g.steps {
		b.WriteByte(s.letter)
	}
	return b.String()
}

// progress says how far the guest came, judging by what it wrote.
func (g probeGuest) progress(written string) string {
	progress := "a test guest did not start"
	for i, s := range g.steps {
		if i < len(written) && written[i] == s.letter {
			progress = "a test guest got no further than " + s.name
		}
	}
	return progress
}

// runProbeGuest returns nil if the guest did all that it should within the deadline, and a *probeFailure
// if not. Other errors mean that it could not be tried.
func runProbeGuest(ctx context.Context, caps Capabilities, arch Arch, accel Accel, deadline time.Duration) error {
	g, err := newProbeGuest(arch)
	if err != nil {
		return err
	}
	image, err := memoryFile("firmware", g.image)
	if err != nil {
		return fmt.Errorf("writing the probe guest: %w", err)
	}
	defer image.Close()
	room, err := caps.room(ctx, accel, false)
	if err != nil {
		return err
	}
	room.AllowWeak = true // the guest is ours

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var written bytes.Buffer
	p, _, err := confine.Start(ctx, confine.Program{
		Path: caps.Binary, Args: g.args(caps, arch, accel, fmt.Sprintf("/proc/self/fd/%d", firstFD)), Env: environment(),
		Stdout: &written, Files: []confine.File{{File: image, Reopen: confine.Read}},
	}, confine.Spec{Room: room, Filter: systemCalls(false)}, process.Options{})
	if err != nil {
		return err
	}
	timer := time.AfterFunc(deadline, func() { cancel(context.DeadlineExceeded) })
	defer timer.Stop()
	<-p.Done()
	return g.judge(p.Err(), written.String(), ctx.Err(), deadline)
}

// memoryFile makes a file in memory, which the caller closes.
func memoryFile(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(content); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// judge turns how QEMU ended into a verdict.
func (g probeGuest) judge(ended error, written string, timeout error, deadline time.Duration) error {
	status := 0
	why := "QEMU ended as if all were well"
	if exit, ok := errors.AsType[*process.ExitError](ended); ok {
		status = exit.State.ExitCode()
		// One line, because it becomes part of a sentence.
		why = strings.Join(append([]string{exit.Name + " ended with " + exit.State.String()}, exit.Tail...), "; ")
	}
	switch {
	case status == g.exit && written == g.complete():
		return nil
	case timeout != nil:
		why = fmt.Sprintf("it was still running after %v", deadline)
	}
	return &probeFailure{g.progress(written) + ": " + why}
}
