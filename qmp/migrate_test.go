package qmp_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/qmp"
	"github.com/sourcery-zone/sandbox/qmp/qmptest"
)

// startBoard is a QEMU with memory whose processors never run.
func startBoard(ctx context.Context, t *testing.T, args ...string) *qmp.Client {
	t.Helper()
	client, _ := startMachine(t, append(args, "-M", "q35", "-accel", "tcg", "-m", "16M", "-S")...)
	if err := client.Handshake(ctx); err != nil {
		t.Fatal(err)
	}
	if v := client.Greeting().Version; v.QEMU.Major < 9 {
		t.Skipf("needs QEMU 9.0 or newer, and this is %d.%d: run make setup-test", v.QEMU.Major, v.QEMU.Minor)
	}
	return client
}

func TestQEMUSavesAndLoadsItsState(t *testing.T) {
	ctx := within(t, time.Minute)
	path := filepath.Join(t.TempDir(), "state")
	saved := startBoard(ctx, t)
	save(ctx, t, saved, path)
	if s, err := saved.Status(ctx); err != nil || s.State != qmp.StatePostMigrate {
		t.Errorf("after it was saved: %+v, %v", s, err)
	}
	if err := saved.Cont(ctx); err != nil {
		t.Errorf("it does not go on: %v", err)
	}
	save(ctx, t, saved, path) // as often as wanted

	loaded := startBoard(ctx, t, "-incoming", "defer")
	if err := load(ctx, loaded, path); err != nil {
		t.Fatal(err)
	}
	if err := loaded.Cont(ctx); err != nil {
		t.Error(err)
	}
	if s, err := loaded.Status(ctx); err != nil || !s.Running {
		t.Errorf("after it was loaded: %+v, %v", s, err)
	}
}

func save(ctx context.Context, t *testing.T, client *qmp.Client, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if blockers, err := client.MigrationBlockers(ctx); err != nil || len(blockers) > 0 {
		t.Errorf("blockers: %q, %v", blockers, err)
	}
	if err := client.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := client.SaveState(ctx, f, qmp.MemoryInState); err != nil {
		t.Fatal(err)
	}
}

func load(ctx context.Context, client *qmp.Client, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return client.LoadState(ctx, f, qmp.MemoryInState)
}

func TestQEMUGoesOnAfterItsStateCouldNotBeWritten(t *testing.T) {
	ctx := within(t, time.Minute)
	client := startBoard(ctx, t)
	if err := client.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := client.SaveState(ctx, fullFile(t), qmp.MemoryInState); err == nil || !strings.Contains(err.Error(), "moving the machine's state failed: ") {
		t.Errorf("got %v, want QEMU's reason", err)
	}
	if err := client.Cont(ctx); err != nil {
		t.Errorf("it does not go on: %v", err)
	}
	var held []any
	if err := client.Execute(ctx, "query-fdsets", nil, &held); err != nil || len(held) > 0 {
		t.Errorf("QEMU holds on to %v, %v", held, err)
	}
	save(ctx, t, client, filepath.Join(t.TempDir(), "state"))
}

// fullFile takes a few KiB and no more, with another error than a full disk.
func fullFile(t *testing.T) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("full", unix.MFD_ALLOW_SEALING|unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, 8<<10); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestQEMUTellsWhatIsWrongWithAState(t *testing.T) {
	ctx := within(t, time.Minute)
	path := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(path, []byte(strings.Repeat("garbage", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	err := load(ctx, startBoard(ctx, t, "-incoming", "defer"), path)
	if err == nil {
		t.Fatal("garbage was loaded")
	}
	// QEMU says so, or ends over it, and no wait is for ever.
	if errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestStateIsSavedByNoOtherConnectionThanAUnixSocket(t *testing.T) {
	client := qmptest.Connect(t, func(m *qmptest.Monitor) { m.Echo(3) })
	if err := client.SaveState(within(t, time.Minute), os.Stdout, qmp.MemoryInState); err == nil || !strings.Contains(err.Error(), "unix socket") {
		t.Errorf("got %v", err)
	}
}
