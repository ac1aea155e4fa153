package qmp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/digitalocean/go-qemu/qmp/raw"
	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/qmp"
)

// startQEMU returns a client of a QEMU that has no machine worth the name: it boots nothing and is
// there within a fraction of a second.
func startQEMU(t *testing.T) (*qmp.Client, *exec.Cmd) {
	t.Helper()
	return startMachine(t, "-M", "none")
}

func startMachine(t *testing.T, args ...string) (*qmp.Client, *exec.Cmd) {
	t.Helper()
	binary, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("needs QEMU: run make test, or sudo apt install qemu-system-x86")
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "client"), os.NewFile(uintptr(fds[1]), "monitor")
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, append(args, "-nodefaults", "-no-user-config", "-display", "none",
		"-chardev", "socket,id=qmp,fd=3", "-mon", "chardev=qmp,mode=control")...)
	cmd.ExtraFiles, cmd.Stderr = []*os.File{theirs}, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	client := qmp.NewClient(conn, qmp.Options{})
	t.Cleanup(func() {
		client.Close()
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	return client, cmd
}

// connectQEMU is startQEMU after its handshake, with a context that bounds the whole test.
func connectQEMU(t *testing.T) (context.Context, *qmp.Client, *exec.Cmd) {
	t.Helper()
	ctx := within(t, time.Minute)
	client, cmd := startQEMU(t)
	if err := client.Handshake(ctx); err != nil {
		t.Fatal(err)
	}
	return ctx, client, cmd
}

func TestQEMUAnswersAndObeys(t *testing.T) {
	ctx, client, cmd := connectQEMU(t)
	if v := client.Greeting().Version; v.QEMU.Major < 7 {
		t.Errorf("version %v", v)
	}
	events := subscribe(ctx, t, client)

	if err := client.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if s, err := client.Status(ctx); err != nil || s.State != qmp.StatePaused || s.Running {
		t.Errorf("after stop: %+v, %v", s, err)
	}
	if err := client.Cont(ctx); err != nil {
		t.Fatal(err)
	}
	if s, err := client.Status(ctx); err != nil || s.State != qmp.StateRunning || !s.Running {
		t.Errorf("after cont: %+v, %v", s, err)
	}
	if err := client.Execute(ctx, "no-such-command", nil, nil); !qmp.IsClass(err, qmp.ClassCommandNotFound) {
		t.Errorf("an unknown command: %v", err)
	}
	if err := client.Execute(ctx, "device_del", map[string]string{"id": "nothing"}, nil); !qmp.IsClass(err, qmp.ClassDeviceNotFound) {
		t.Errorf("an unknown device: %v", err)
	}
	if err := client.Quit(ctx); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(names(events)); got != "[STOP RESUME SHUTDOWN]" {
		t.Errorf("got events %s", got)
	}
	<-client.Done()
	if !errors.Is(client.Err(), io.EOF) {
		t.Errorf("the connection ended with %v", client.Err())
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("QEMU ended with %v", err)
	}
}

func TestQEMUPowerdownIsAnnounced(t *testing.T) {
	ctx, client, _ := connectQEMU(t)
	events := subscribe(ctx, t, client)
	if err := client.SystemPowerdown(ctx); err != nil {
		t.Fatal(err)
	}
	if e := <-events; e.Event != "POWERDOWN" {
		t.Errorf("got %q", e.Event)
	}
}

// go-qemu's generated commands work over this client as its own interface, those with large replies
// and those that QEMU refuses among them.
func TestQEMUWithGoQEMUsCommands(t *testing.T) {
	client, _ := startQEMU(t)
	if err := client.Connect(); err != nil {
		t.Fatal(err)
	}
	monitor := raw.NewMonitor(client)
	status, err := monitor.QueryStatus()
	if err != nil || !status.Running || status.Status != raw.RunStateRunning {
		t.Errorf("query-status: %+v, %v", status, err)
	}
	commands, err := monitor.QueryCommands()
	if err != nil || len(commands) < 100 {
		t.Errorf("query-commands: %d, %v", len(commands), err)
	}
	if err := monitor.DeviceDel("nothing"); !qmp.IsClass(err, qmp.ClassDeviceNotFound) {
		t.Errorf("device_del: %v", err)
	}
	if err := client.Disconnect(); err != nil {
		t.Error(err)
	}
}

// query-qmp-schema is QEMU's largest reply, and many at once with events in between are the
// hardest that it can make the matching of replies.
func TestQEMULargeRepliesAtOnce(t *testing.T) {
	ctx, client, _ := connectQEMU(t)
	subscribe(ctx, t, client) // and never read
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var schema []json.RawMessage
			if err := client.Execute(ctx, "query-qmp-schema", nil, &schema); err != nil || len(schema) < 500 {
				t.Errorf("query-qmp-schema: %d entities, %v", len(schema), err)
			}
		})
		wg.Go(func() {
			if err := errors.Join(client.Stop(ctx), client.Cont(ctx)); err != nil {
				t.Error(err)
			}
			var version qmp.Version
			if err := client.Execute(ctx, "query-version", nil, &version); err != nil || version.QEMU.Major == 0 {
				t.Errorf("query-version: %v, %v", version, err)
			}
		})
	}
	wg.Wait()
	reply, err := client.RunContext(ctx, []byte(`{"execute":"query-qmp-schema","id":"mine"}`))
	if err != nil || len(reply) < 64<<10 || !json.Valid(reply) {
		t.Errorf("the raw reply has %d bytes, %v", len(reply), err)
	}
}

// A stopped process is the plainest QEMU that does not answer.
func TestQEMUThatHangsMeetsTheDeadline(t *testing.T) {
	ctx, client, cmd := connectQEMU(t)
	if err := cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Status(within(t, 100*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if err := cmd.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Status(ctx); err != nil {
		t.Errorf("after it went on: %v", err)
	}
}

func TestQEMUThatIsKilledIsEOF(t *testing.T) {
	ctx, client, cmd := connectQEMU(t)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-client.Done():
	case <-ctx.Done():
		t.Fatal("the end was not noticed")
	}
	if !errors.Is(client.Err(), io.EOF) {
		t.Errorf("the connection ended with %v", client.Err())
	}
}
