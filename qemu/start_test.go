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
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/internal/confine"
	"github.com/sourcery-zone/sandbox/internal/process"
)

// start starts QEMU at once, which inherits the files in this order. They stay the caller's.
func start(ctx context.Context, caps Capabilities, c Config, log io.Writer, files ...*os.File) (*Process, error) {
	l, err := Ready(ctx, caps, LaunchOptions{Accel: c.Accel, HostNetwork: c.HostNetwork(), Log: log})
	if err != nil {
		return nil, err
	}
	inherited := &Files{}
	for _, f := range files {
		inherited.lend(confine.File{File: f})
	}
	return l.Start(c, StartOptions{Files: inherited})
}

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
	p, err := start(t.Context(), realQEMU(t, X86_64), c, &log)
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
	if p, err := start(t.Context(), realQEMU(t, X86_64), Config{}, nil); err == nil {
		p.Stop(t.Context(), 0)
		t.Error("Start took an empty configuration")
	}
}

func TestHostNetworkIsGivenExactlyToWhatNeedsIt(t *testing.T) {
	caps := capabilities(t, "x86_64-10.0")
	for name, backend := range map[string]Netdev{"user network": UserNetwork{}, "datagram socket": DatagramSocket{FD: 7}, "none": nil} {
		c := full()
		if c.NIC.Backend = backend; backend == nil {
			c.NIC = nil
		}
		l := &Launcher{caps: caps, options: LaunchOptions{Accel: c.Accel, HostNetwork: !c.HostNetwork()}}
		if _, err := l.Start(c, StartOptions{}); err == nil || !strings.Contains(err.Error(), "this machine's network") {
			t.Errorf("%s: Start = %v", name, err)
		}
	}
}

func TestStartClosesTheFilesWhateverComesOfIt(t *testing.T) {
	caps := capabilities(t, "x86_64-10.0")
	for name, change := range map[string]func(*Config){
		"nonsense":     func(c *Config) { c.CPUs = 0 },
		"a wrong file": func(c *Config) { c.Kernel = "/nowhere" },
		"too few":      func(c *Config) { c.AgentFD = c.MonitorFD + 1 },
	} {
		ours, theirs := socketpair(t)
		files := &Files{}
		c := minimal()
		c.MonitorFD = files.Add(theirs)
		change(&c)
		l := &Launcher{caps: caps, options: LaunchOptions{Accel: c.Accel}}
		if _, err := l.Start(c, StartOptions{Files: files}); err == nil {
			t.Fatalf("%s: no error", name)
		}
		ours.SetDeadline(time.Now().Add(time.Minute))
		if _, err := ours.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: the other end says %v", name, err)
		}
		if err := files.Close(); err != nil { // for which nothing is left
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRealQEMUTakesEveryDevice starts QEMU with all devices but the shares, whose daemon it would wait
// for, up to the first instruction of the guest.
func TestRealQEMUTakesEveryDevice(t *testing.T) {
	t.Run("user network", func(t *testing.T) { takesEveryDevice(t, 0, UserNetwork{}) })
	t.Run("datagram socket", func(t *testing.T) {
		_, theirs := datagrams(t)
		takesEveryDevice(t, 65520, DatagramSocket{FD: firstFD + 4}, theirs)
	})
}

func takesEveryDevice(t *testing.T, mtu int, backend Netdev, more ...*os.File) {
	t.Helper()
	caps := realQEMU(t, X86_64)
	disk := t.TempDir() + "/disk, with a comma"
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	c := full()
	c.Shares, c.Initrd = nil, ""
	c.NIC.MTU, c.NIC.Backend = mtu, backend
	c.Kernel = emptyKernel(t)
	c.Drives[0].Path = disk
	layers := newDisk(t, 3)
	c.Drives[1].Path, c.Drives[1].Backing, c.Drives[1].Mergeable = layers[2], layers[:2], 1
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
	p, err := start(ctx, caps, c, nil, append([]*os.File{theirs3, theirs4, theirs5, memory}, more...)...)
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

// Should a header be changed after it was judged, QEMU still does not look for what it names.
func TestQEMUIsToldWhatIsBelowEachLayer(t *testing.T) {
	caps := realQEMU(t, HostArch())
	layers := newDisk(t, 2)
	for _, layer := range layers {
		if err := CreateLayer(layer, "nothing.qcow2", 64<<20); err != nil {
			t.Fatal(err)
		}
	}
	c := minimal()
	c.Arch, c.Kernel, c.Paused, c.MonitorFD = HostArch(), emptyKernel(t), true, firstFD
	c.Drives = []Drive{{ID: "disk", Format: "qcow2", Path: layers[1], Backing: layers[:1]}}
	args, err := c.Args(caps)
	if err != nil {
		t.Fatal(err)
	}
	monitor, theirs := socketpair(t)
	cmd := exec.Command(caps.Binary, args...)
	cmd.ExtraFiles, cmd.Stderr = []*os.File{theirs}, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	line, err := bufio.NewReader(monitor).ReadString('\n')
	_ = cmd.Process.Kill()
	if ended := cmd.Wait(); err != nil || !strings.Contains(line, "QMP") {
		t.Errorf("QEMU did not start: %q, %v; %v", line, err, ended)
	}
}
