package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/internal/confine"
)

// fakeQEMU writes a program that answers as the QEMU whose answers are in testdata/probe, and counts its
// runs in the file that the second result names.
func fakeQEMU(t *testing.T, fixture string) (binary, runs string) {
	t.Helper()
	answers, err := filepath.Abs(filepath.Join("testdata", "probe", fixture))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	runs = filepath.Join(dir, "runs")
	return fakeBinary(t, fmt.Sprintf("echo run >>'%s'\ncat '%s'/\"${1#-}\".txt\n", runs, answers)), runs
}

func fakeBinary(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// fakes are what a program does that stands in for a QEMU which is confined, so that it cannot be a script: the
// test's own binary, which looks here under its name.

var fakes = map[string]func(){
	"silent":       func() { time.Sleep(10 * time.Minute) },
	"reset":        func() { fmt.Print("rpl") },
	"aborted":      func() { fmt.Fprintln(os.Stderr, "failed to set MSR"); os.Exit(134) },
	"right status": func() { os.Exit(85) },
	"right words":  func() { fmt.Print("rplft.") },
	"hostile":      hostile,
}

func TestMain(m *testing.M) {
	confine.Main()
	if fake, ok := fakes[filepath.Base(os.Args[0])]; ok {
		fake()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fakeProgram copies the test's binary to where QEMU's user can read it.
func fakeProgram(t *testing.T, name string) string {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "qemu")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, name)
	if err := errors.Join(os.WriteFile(path, self, 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}

// capabilities returns those of a recorded QEMU.
func capabilities(t *testing.T, fixture string) Capabilities {
	t.Helper()
	binary, _ := fakeQEMU(t, fixture)
	caps, err := Probe(context.Background(), binary, "")
	if err != nil {
		t.Fatal(err)
	}
	caps.Binary, caps.QBoot = "/usr/bin/qemu", "/usr/share/qemu/qboot.rom"
	return caps
}

// realQEMU returns the QEMU of this machine, for the tests that must hear the real one.
func realQEMU(t *testing.T, arch Arch) Capabilities {
	t.Helper()
	binary, err := Find(arch)
	if err != nil {
		t.Skip(err) // names the package to install
	}
	caps, err := Probe(context.Background(), binary, "")
	if err != nil {
		t.Fatal(err)
	}
	return caps
}

// socketpair returns two connected stream sockets, closed at the test's end.
func socketpair(t *testing.T) (ours net.Conn, theirs *os.File) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs = os.NewFile(uintptr(fds[0]), "theirs")
	t.Cleanup(func() { theirs.Close() })
	file := os.NewFile(uintptr(fds[1]), "ours")
	defer file.Close() // FileConn duplicates it
	if ours, err = net.FileConn(file); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close() })
	return ours, theirs
}

// datagrams returns two connected datagram sockets, closed at the test's end.
func datagrams(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs = os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

// minimal is the smallest valid configuration, which a test changes in one place.
func minimal() Config {
	return Config{Arch: X86_64, Accel: AccelTCG, CPUs: 1, MemoryMiB: 512, Kernel: "/boot/vmlinuz"}
}

// full uses every device.
func full() Config {
	return Config{
		Name:      "demo",
		Arch:      X86_64,
		Accel:     AccelTCG,
		CPUs:      2,
		MemoryMiB: 1024,
		Kernel:    "/images/debian/vmlinuz",
		Initrd:    "/images/debian/initrd",
		Cmdline:   []string{"sandbox.transport=serial", "quiet"},
		Drives: []Drive{
			{ID: "store", Path: "/images/debian/store.erofs", Format: "raw", ReadOnly: true},
			{ID: "disk", Path: "/state/demo, the first/2.qcow2", Format: "qcow2", Serial: "disk", Backing: []string{"/state/demo, the first/0.qcow2", "/state/demo, the first/1.qcow2"}},
		},
		Shares: []Share{
			{Tag: "home", Socket: "/run/demo/home.sock"},
			{Tag: "share0", Socket: "/run/demo/share0.sock"},
		},
		NIC: &NIC{
			MAC: "52:54:00:12:34:56",
			Backend: UserNetwork{Forwards: []Forward{
				{Proto: "tcp", HostIP: "127.0.0.1", HostPort: 2222, GuestPort: 22},
				{Proto: "udp", HostIP: "0.0.0.0", HostPort: 5353, GuestPort: 53},
			}},
		},
		MonitorFD: 3,
		AgentFD:   4,
		ConsoleFD: 5,
		MemoryFD:  6,
	}
}
