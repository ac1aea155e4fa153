package process

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// parentEnv makes the test binary start a program, print its pid and wait to be killed.
const parentEnv = "SANDBOX_TEST_PROCESS_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(parentEnv) == "" {
		os.Exit(m.Run())
	}
	p, err := Start(exec.Command("sleep", "600"), Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(p.PID())
	<-p.Done()
	os.Exit(0)
}

func start(t *testing.T, o Options, script string) *Process {
	t.Helper()
	p, err := Start(exec.Command("/bin/sh", "-c", script), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop(context.Background(), 0) })
	return p
}

func wait(t *testing.T, p *Process) error {
	t.Helper()
	select {
	case <-p.Done():
		return p.Err()
	case <-time.After(time.Minute):
		t.Fatal("the program did not end")
		return nil
	}
}

// startReady starts a script that prints "ready", and returns when it has.
func startReady(t *testing.T, script string) *Process {
	t.Helper()
	r, w := io.Pipe()
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Stdout = w
	p, err := Start(cmd, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop(context.Background(), 0) })
	if line, err := bufio.NewReader(r).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the script said %q, %v", line, err)
	}
	go io.Copy(io.Discard, r)
	return p
}

func TestSuccessIsNoError(t *testing.T) {
	p := start(t, Options{}, "exit 0")
	if err := wait(t, p); err != nil {
		t.Errorf("Err = %v", err)
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("Signal after the end = %v, want os.ErrProcessDone", err)
	}
}

func TestErrIsNilWhileRunning(t *testing.T) {
	p := start(t, Options{}, "exec sleep 600")
	if err := p.Err(); err != nil {
		t.Errorf("Err = %v", err)
	}
}

func TestErrorQuotesLastLinesOfStderr(t *testing.T) {
	p := start(t, Options{TailLines: 2}, "echo one >&2; echo two >&2; echo; echo >&2; echo out; printf 'three' >&2; exit 3")
	err := wait(t, p)
	var exit *ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("Err = %v, want an *ExitError", err)
	}
	if want := []string{"two", "three"}; !slices.Equal(exit.Tail, want) {
		t.Errorf("Tail = %q, want %q", exit.Tail, want)
	}
	if exit.Name != "sh" || exit.State.ExitCode() != 3 {
		t.Errorf("Name = %q, exit code = %d", exit.Name, exit.State.ExitCode())
	}
	if want := "sh ended with exit status 3: two\n\tthree"; err.Error() != want {
		t.Errorf("Error = %q, want %q", err, want)
	}
}

func TestErrorOfSilentProgramSaysSo(t *testing.T) {
	err := wait(t, start(t, Options{}, "exit 1"))
	if want := "sh ended with exit status 1 and wrote nothing to its standard error"; err == nil || err.Error() != want {
		t.Errorf("Error = %v, want %q", err, want)
	}
}

func TestLogGetsBothOutputs(t *testing.T) {
	var log bytes.Buffer
	if err := wait(t, start(t, Options{Log: &log}, "echo out; echo err >&2")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"out\n", "err\n"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log is %q and lacks %q", log.String(), want)
		}
	}
}

func TestTimersOfAProgramMayBeLate(t *testing.T) {
	slack := func(o Options) string {
		t.Helper()
		var out bytes.Buffer
		o.Log = &out
		if err := wait(t, start(t, o, "cat /proc/self/timerslack_ns")); err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out.String())
	}
	if got := slack(Options{TimerSlack: 3 * time.Millisecond}); got != "3000000" {
		t.Errorf("a program has a slack of %s ns, want 3000000", got)
	}
	if got := slack(Options{}); got == "3000000" {
		t.Errorf("another one has a slack of %s ns, too", got)
	}
}

func TestCallersOwnWritersAreKept(t *testing.T) {
	var stdout, stderr, log bytes.Buffer
	cmd := exec.Command("/bin/sh", "-c", "echo out; echo err >&2; exit 1")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	p, err := Start(cmd, Options{Log: &log})
	if err != nil {
		t.Fatal(err)
	}
	err = wait(t, p)
	if stdout.String() != "out\n" || stderr.String() != "err\n" || log.String() != "err\n" {
		t.Errorf("stdout %q, stderr %q, log %q", stdout.String(), stderr.String(), log.String())
	}
	if err == nil || !strings.Contains(err.Error(), "err") {
		t.Errorf("Err = %v, want it to quote standard error", err)
	}
}

func TestFailingLogDoesNotFailTheProgram(t *testing.T) {
	r, w := io.Pipe()
	r.Close()
	if err := wait(t, start(t, Options{Log: w}, "echo out; echo err >&2")); err != nil {
		t.Errorf("Err = %v", err)
	}
}

func TestGrandchildHoldingStderrDoesNotDelayDone(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "sleep 600 & echo $! >&2")
	cmd.WaitDelay = time.Second
	var log bytes.Buffer
	p, err := Start(cmd, Options{Log: &log})
	if err != nil {
		t.Fatal(err)
	}
	if err := wait(t, p); err != nil {
		t.Errorf("Err = %v", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(log.String()))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

func TestStartNamesMissingProgram(t *testing.T) {
	_, err := Start(exec.Command("/nonexistent/program"), Options{})
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "starting program") {
		t.Errorf("Start = %v", err)
	}
}

func TestStopLetsProgramEndItself(t *testing.T) {
	p := startReady(t, "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done")
	if err := p.Stop(context.Background(), 20*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := p.Err(); err != nil {
		t.Errorf("Err = %v", err)
	}
}

func TestStopKillsProgramThatIgnoresTerm(t *testing.T) {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	for name, stop := range map[string]func(*Process) error{
		"grace passed":   func(p *Process) error { return p.Stop(context.Background(), 10*time.Millisecond) },
		"context ending": func(p *Process) error { return p.Stop(cancelled, time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			p := startReady(t, "trap '' TERM; echo ready; while :; do sleep 0.01; done")
			if err := stop(p); err != nil {
				t.Fatal(err)
			}
			var exit *ExitError
			if err := wait(t, p); !errors.As(err, &exit) {
				t.Fatalf("Err = %v, want an *ExitError", err)
			}
			if status := exit.State.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
				t.Errorf("the program ended with %v", exit.State)
			}
			if err := p.Stop(context.Background(), time.Hour); err != nil {
				t.Errorf("second Stop = %v", err)
			}
		})
	}
}

func TestProgramDiesWithItsParent(t *testing.T) {
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), parentEnv+"=1")
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	child, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	parent.Wait()
	// The kernel sends the signal before it reaps the parent, but the child takes a moment to go, and
	// may stay as a zombie where nobody adopts it.
	for deadline := time.Now().Add(time.Minute); running(child.Pid); {
		if time.Now().After(deadline) {
			child.Kill()
			t.Fatal("the program outlived its parent")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// running reports whether the process exists and is more than a zombie.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}
