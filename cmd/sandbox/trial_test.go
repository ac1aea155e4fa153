package main

import (
	"bytes"
	"fmt"
	"regexp"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// trial is a part of a test that can be run again: its failure is not the test's. It is what package testscript takes for a
// test, too.
type trial struct {
	test    *testing.T
	log     bytes.Buffer
	failed  bool
	skipped bool
	stood   atomic.Bool // a processor of a guest stood still, after it had booted
}

// runScript runs one script. It is tried again, up to three times, where it failed because an emulated processor stood
// still: once in some hundred boots on a busy machine, QEMU's emulator leaves one where it does not go on. Then the kernel on
// another one says for ever that its timers are overdue, or there is not even a console yet, and nothing happens any more
// until the patience with the guest is over. Nothing that we start a guest with was found to bring that about or to keep it
// off. What is wrong with us fails each time, and whatever else fails, fails at once.
func runScript(t *testing.T, p testscript.Params) {
	for try := 1; ; try++ {
		a := &trial{test: t}
		testscript.RunT(a, p)
		switch {
		case a.skipped:
			t.Skip(a.log.String())
		case !a.failed:
			t.Log(a.log.String())
			return
		case try == scriptTries || !a.stood.Load() && !stoodStill.Match(a.log.Bytes()):
			t.Fatal(a.log.String())
		}
		t.Logf("a processor stood still, and it is tried again:\n%s", a.log.String())
	}
}

const scriptTries = 3

// stoodStill is in the last lines of the console of a guest of which a processor stands still: the kernel shows where the
// thread waits that should have gone on. Or it is what is said of a guest that has done nothing for many minutes.
var stoodStill = regexp.MustCompile(`rcu_gp_kthread|rcu_preempt kthread|rcu_preempt detected stalls|the guest was not ready after [0-9]{2}m0s`)

// Run runs the script within the trial. The only one at a time: the test itself is what runs beside others.
func (a *trial) Run(_ string, script func(testscript.T)) {
	a.run(func() { script(a) })
}

// run runs the trial's body, up to what it fails at.
func (a *trial) run(body func()) {
	done := make(chan struct{})
	go func() { // which a failure ends
		defer close(done)
		body()
	}()
	<-done
}

// step runs what the trial comes to next, and logs that it has.
func (a *trial) step(what string, body func()) {
	a.Log(what)
	body()
}

func (a *trial) Log(args ...any) { fmt.Fprintln(&a.log, args...) }
func (a *trial) Parallel()       {}
func (a *trial) Verbose() bool   { return testing.Verbose() }

func (a *trial) Skip(args ...any) {
	a.skipped = true
	a.Log(args...)
	runtime.Goexit()
}

func (a *trial) Fatal(args ...any) {
	a.Log(args...)
	a.FailNow()
}

func (a *trial) Fatalf(format string, args ...any) { a.Fatal(fmt.Sprintf(format, args...)) }

func (a *trial) FailNow() {
	a.failed = true
	runtime.Goexit()
}
