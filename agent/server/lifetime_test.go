//go:build linux

package server_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/internal/wire"
	"golang.org/x/sys/unix"
)

func TestExitStatus(t *testing.T) {
	client := newFixture(t).Client(t)
	for _, code := range []int{1, 7, 128, 255} {
		mustExit(t, client.Command(t.Context(), "sh", "-c", "exit "+strconv.Itoa(code)).Run(), code)
	}
	if err := client.Command(t.Context(), "true").Run(); err != nil {
		t.Error(err)
	}
}

func TestExitBySignal(t *testing.T) {
	client := newFixture(t).Client(t)
	for _, name := range []string{"KILL", "TERM", "USR1"} {
		exit := mustExit(t, client.Command(t.Context(), "sh", "-c", "kill -"+name+" $$").Run(), 128+wire.SignalNumber(name))
		if exit.Signal != name {
			t.Errorf("ended by %q, want %q", exit.Signal, name)
		}
	}
}

// startWaiting starts a shell script and waits for its first line.
func startWaiting(t *testing.T, cmd *agent.Cmd) (line string, rest *bufio.Reader) {
	t.Helper()
	r, w := io.Pipe()
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	rest = bufio.NewReader(r)
	line, err := rest.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, rest) }()
	return strings.TrimSpace(line), rest
}

func TestSignalReachesTheCommandAndItsChildren(t *testing.T) {
	f := newFixture(t)
	cmd := f.Client(t).Command(t.Context(), "sh", "-c", `trap 'exit 3' TERM; sh -c 'echo $$; exec sleep 1000' & wait`)
	child, _ := startWaiting(t, cmd)
	if err := cmd.Signal("SIGTERM"); err != nil {
		t.Fatal(err)
	}
	mustExit(t, cmd.Wait(), 3)
	isGone(t, child)
	if err := cmd.Signal("NOSUCH"); err == nil {
		t.Error("an unknown signal was accepted")
	}
}

// isGone waits until a process has ended.
func isGone(t *testing.T, pid string) {
	t.Helper()
	number, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "process "+pid+" ends", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", number))
		return err != nil || bytes.Contains(stat, []byte(") Z "))
	})
}

func TestEndOfTheContextKillsTheCommand(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cmd := f.Client(t).Command(ctx, "sh", "-c", "echo $$; exec sleep 1000")
	pid, _ := startWaiting(t, cmd)
	reason := errors.New("enough")
	cancel(reason)
	if err := cmd.Wait(); !errors.Is(err, reason) {
		t.Errorf("got %v, want %v", err, reason)
	}
	isGone(t, pid)
}

func TestLossOfTheHostHangsUp(t *testing.T) {
	f := newFixture(t)
	client := f.Client(t)
	cmd := client.Command(t.Context(), "sh", "-c", "echo $$; exec sleep 1000")
	pid, _ := startWaiting(t, cmd)
	client.Close()
	isGone(t, pid)
	if err := cmd.Wait(); err == nil {
		t.Error("a command whose end nobody saw was a success")
	}
}

func TestBackgroundJobDoesNotHoldTheSession(t *testing.T) {
	f := newFixture(t)
	var stderr bytes.Buffer
	cmd := f.Client(t).Command(t.Context(), "sh", "-c", "sleep 1000 & echo $!; echo err >&2; exit 5")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	mustExit(t, err, 5)
	if stderr.String() != "err\n" {
		t.Errorf("stderr is %q", stderr.String())
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Errorf("the job did not go on: %v", err)
	}
}

func TestCommandWaitsForTheGuestToBeReady(t *testing.T) {
	f := newFixture(t)
	f.Guest.Ready = make(chan struct{})
	client := f.Client(t)
	cmd := client.Command(t.Context(), "echo", "ran")
	var out bytes.Buffer
	cmd.Stdout = &out
	started := make(chan error, 1)
	go func() { started <- cmd.Start() }()
	// Other requests must not have to wait behind it.
	if _, err := client.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-started:
		t.Fatalf("the command started before the guest was ready: %v", err)
	default:
	}
	close(f.Guest.Ready)
	if err := errors.Join(<-started, cmd.Wait()); err != nil || out.String() != "ran\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func TestCommandSaysWhyTheGuestIsNotReady(t *testing.T) {
	f := newFixture(t)
	f.Guest.Failure = errors.New("the store is missing")
	var stderr bytes.Buffer
	cmd := f.Client(t).Command(t.Context(), "true")
	cmd.Stderr = &stderr
	mustExit(t, cmd.Run(), 125)
	contains(t, stderr.String(), "the store is missing")
}

func TestOtherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can start processes of other users: run the tests as root to see this one")
	}
	f := newFixture(t)
	cmd := f.Client(t).Command(t.Context(), "sh", "-c", "id -u; id -g; id -G; pwd")
	cmd.User = "nobody"
	out, err := cmd.Output()
	if err != nil || string(out) != "65534\n65534\n65534\n/\n" {
		t.Errorf("%q, %v", out, err)
	}
	// The home is a directory that only its owner enters.
	if err := os.Chmod(f.Home, 0o700); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	denied := f.Client(t).Command(t.Context(), "true")
	denied.User, denied.Dir, denied.Stderr = "nobody", f.Home, &stderr
	mustExit(t, denied.Run(), 126)
	contains(t, stderr.String(), "may not enter")
}

func TestManyCommandsAtOnce(t *testing.T) {
	client := newFixture(t).Client(t)
	results := make(chan error)
	const count = 50
	for i := range count {
		go func() {
			out, err := client.Command(t.Context(), "echo", strconv.Itoa(i)).Output()
			if err == nil && string(out) != strconv.Itoa(i)+"\n" {
				err = fmt.Errorf("command %d wrote %q", i, out)
			}
			results <- err
		}()
	}
	for range count {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func TestStoppedReaderLosesNothing(t *testing.T) {
	f := newFixture(t)
	// More than fits into all windows and pipes on the way, so that the end is
	// still in the guest's pipe when the command has ended.
	const size = 3 << 20
	cmd := f.Client(t).Command(t.Context(), "sh", "-c", fmt.Sprintf("head -c %d /dev/zero", size))
	slow := &slowWriter{after: time.Now().Add(1500 * time.Millisecond)}
	cmd.Stdout = slow
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if slow.n != size {
		t.Errorf("%d bytes arrived of %d", slow.n, size)
	}
}

// slowWriter takes nothing before a certain time.
type slowWriter struct {
	after time.Time
	n     int
}

func (s *slowWriter) Write(p []byte) (int, error) {
	<-time.After(time.Until(s.after))
	s.n += len(p)
	return len(p), nil
}
