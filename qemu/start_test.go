package qemu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/internal/process"
)

// emptyKernel is a file that QEMU takes for a kernel; what the guest makes of it is of no interest.
func emptyKernel(t *testing.T) string {
	t.Helper()
	path := t.TempDir() + "/kernel, with a comma"
	if err := os.WriteFile(path, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestStartQuotesWhatQEMUSays(t *testing.T) {
	c := minimal()
	c.Kernel = emptyKernel(t)
	if err := os.WriteFile(c.Kernel, nil, 0o600); err != nil { // which is no kernel
		t.Fatal(err)
	}
	var log bytes.Buffer
	p, err := Start(t.Context(), realQEMU(t, X86_64), c, StartOptions{Log: &log})
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	var exit *process.ExitError
	if err := p.Err(); !errors.As(err, &exit) || !strings.Contains(err.Error(), "could not load kernel") {
		t.Errorf("Err = %v, want QEMU's own words", err)
	}
	if !strings.Contains(log.String(), "could not load kernel") {
		t.Errorf("the log is %q", log.String())
	}
}

func TestStartRefusesNonsenseWithoutStarting(t *testing.T) {
	if p, err := Start(t.Context(), Capabilities{}, Config{}, StartOptions{}); err == nil {
		p.Stop(t.Context(), 0)
		t.Error("Start took an empty configuration")
	}
}

// TestRealQEMUTakesEveryDevice starts QEMU with all devices but the shares, whose daemon it would wait
// for, up to the first instruction of the guest.
func TestRealQEMUTakesEveryDevice(t *testing.T) {
	caps := realQEMU(t, X86_64)
	disk := t.TempDir() + "/disk, with a comma"
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	c := full()
	c.Shares, c.Network.Forwards, c.Initrd = nil, nil, ""
	c.Kernel = emptyKernel(t)
	c.Drives[0].Path = disk
	c.Drives[1].Path, c.Drives[1].Backing = twoLayers(t, caps)
	memory, err := memoryFile("memory", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	if err := memory.Truncate(c.MemoryBytes()); err != nil {
		t.Fatal(err)
	}
	monitor, theirs3 := socketpair(t)
	_, theirs4 := socketpair(t)
	_, theirs5 := socketpair(t)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p, err := Start(ctx, caps, c, StartOptions{Files: []*os.File{theirs3, theirs4, theirs5, memory}})
	if err != nil {
		t.Fatal(err)
	}
	theirs3.Close()
	monitor.SetReadDeadline(time.Now().Add(time.Minute))
	lines := bufio.NewReader(monitor)
	line, err := lines.ReadBytes('\n')
	if err != nil {
		cancel()
		<-p.Done()
		t.Fatalf("no greeting from the monitor: %v; %v", err, p.Err())
	}
	var greeting struct{ QMP json.RawMessage }
	if err := json.Unmarshal(line, &greeting); err != nil || greeting.QMP == nil {
		t.Errorf("the monitor's greeting is %q, %v", line, err)
	}
	// The greeting comes before QEMU answers to signals, which the first process of a namespace must do to get any.
	if _, err := io.WriteString(monitor, `{"execute":"qmp_capabilities"}{"execute":"query-status"}`); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := lines.ReadBytes('\n'); err != nil {
			t.Fatal(err)
		}
	}

	cancel()
	<-p.Done()
	var exit *process.ExitError
	if err := p.Err(); errors.As(err, &exit) && exit.State.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		t.Errorf("QEMU had to be killed: %v", err)
	}
}

// twoLayers makes a disk of two layers, and returns the upper one and what is below it.
func twoLayers(t *testing.T, caps Capabilities) (top string, backing []string) {
	t.Helper()
	img, err := FindImg(caps.Binary)
	if err != nil {
		t.Skip(err) // names the package to install
	}
	below := t.TempDir() + "/0, the lowest.qcow2"
	top = filepath.Join(filepath.Dir(below), "1.qcow2")
	if err := CreateDisk(t.Context(), img, below, 64); err != nil {
		t.Fatal(err)
	}
	if err := CreateLayer(t.Context(), img, top, filepath.Base(below)); err != nil {
		t.Fatal(err)
	}
	return top, []string{below}
}

func TestMergedLayersShowWhatBothShowed(t *testing.T) {
	caps := realQEMU(t, HostArch())
	top, backing := twoLayers(t, caps)
	img, err := FindImg(caps.Binary)
	if err != nil {
		t.Fatal(err)
	}
	io, err := exec.LookPath(filepath.Join(filepath.Dir(img), "qemu-io"))
	if err != nil {
		t.Skipf("qemu-io is not beside %s: install qemu-utils", img)
	}
	run := func(args ...string) string {
		out, err := exec.Command(io, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	run("-f", "qcow2", "-c", "write -P 7 1M 64k", top)
	if err := MergeLayer(t.Context(), img, top); err != nil {
		t.Fatal(err)
	}
	if out := run("-f", "qcow2", "-c", "read -P 7 1M 64k", backing[0]); strings.Contains(out, "verification failed") {
		t.Errorf("the lower layer lacks what the upper one had: %s", out)
	}
}
