package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// helperVariable makes the test program one that is run by a test.
const helperVariable = "SANDBOX_TEST_HELPER"

// TestHelperReadsItsTerminal is the program of the test below.
func TestHelperReadsItsTerminal(t *testing.T) {
	if os.Getenv(helperVariable) != "terminal" {
		t.Skip("it is run by TestATerminalIsTakenInTheForegroundOnly")
	}
	signals := make(chan os.Signal, 1)
	notify(signals, unix.SIGCONT)
	k, err := newTTYInput(os.Stdin, true)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range signals {
			k.resume()
		}
	}()
	if err := k.take(); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("begun-%v\r\n", k.ours())
	k.taken = func() { fmt.Print("taken-now\r\n") }
	var line string
	for key := make([]byte, 1); !strings.HasSuffix(line, "\r"); line += string(key) { // Return, in raw mode
		if _, err := k.Read(key); err != nil {
			t.Fatal(err)
		}
	}
	k.close()
	fmt.Printf("read-%q\n", line)
}

// TestATerminalIsTakenInTheForegroundOnly runs jobs in an interactive shell, as
// a person does.
func TestATerminalIsTakenInTheForegroundOnly(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // a bound for a hang
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "--norc", "--noprofile", "--noediting", "-i")
	cmd.Env = append(os.Environ(), helperVariable+"=terminal", "PS1=prompt-$(tty >/dev/null; echo ready) ", "HELPER="+os.Args[0])
	tty, err := pty.Start(cmd)
	if err != nil {
		t.Skipf("there is no bash with a terminal: install bash (%v)", err)
	}
	defer tty.Close()
	shell := newScreen(tty)
	run := func(command string) {
		shell.expect(ctx, t, "prompt-ready")
		shell.send(t, command+"\r")
	}
	const helper = `"$HELPER" -test.run TestHelperReadsItsTerminal`

	run(helper)
	shell.expect(ctx, t, "begun-true")
	shell.send(t, "one\r")
	shell.expect(ctx, t, `read-"one\\r"`)

	run(helper + " &")
	shell.expect(ctx, t, "begun-false")
	shell.send(t, "\r") // bash tells of a job that the kernel stopped before it prompts
	run("stty -a | grep -o -- '[-]*icanon'; jobs -l; echo shown-$((40+2))")
	shell.expect(ctx, t, `shown-42`)
	if text := shell.text(); strings.Contains(text, "Stopped") || strings.Contains(text, "-icanon") {
		t.Errorf("a job in the background took the terminal or was stopped for it:\n%s", text)
	}
	run("fg")
	shell.expect(ctx, t, "taken-now")
	shell.send(t, "two\r")
	shell.expect(ctx, t, `read-"two\\r"`)

	// Stopped by another, and brought back through the background.
	run(helper)
	shell.expect(ctx, t, "begun-true")
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	job, err := strconv.Atoi(strings.TrimSpace(string(children)))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(job, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	shell.expect(ctx, t, "Stopped")
	run("bg")
	run("fg")
	shell.expect(ctx, t, "taken-now")
	shell.send(t, "three\r")
	shell.expect(ctx, t, `read-"three\\r"`)
	run("exit 7")
	if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("the shell ended with %v\n%s", cmd.ProcessState, shell.text())
	}
}

// TestHelperWaitsForSignals is the program of the test below.
func TestHelperWaitsForSignals(t *testing.T) {
	if os.Getenv(helperVariable) != "signals" {
		t.Skip("it is run by TestIgnoredSignalsStayIgnored")
	}
	fmt.Printf("heeded: %v\n", heeded(unix.SIGINT, unix.SIGHUP, unix.SIGTERM))
	signals := make(chan os.Signal, 4)
	notify(signals, unix.SIGINT, unix.SIGHUP)
	notify(signals, unix.SIGTERM)
	// One that is sent to a thread is there before the next one is sent; several to the
	// process may overtake each other.
	runtime.LockOSThread()
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGHUP, unix.SIGTERM} {
		if err := unix.Tgkill(os.Getpid(), unix.Gettid(), sig); err != nil {
			t.Fatal(err)
		}
	}
	for {
		sig := <-signals
		fmt.Printf("got: %v\n", sig)
		if sig == unix.SIGTERM {
			return
		}
	}
}

func TestIgnoredSignalsStayIgnored(t *testing.T) {
	// The tests may run by nohup. What a process has a handler for, it does not ignore,
	// and neither do the programs that it starts.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGHUP)
	defer signal.Stop(signals)
	for trap, want := range map[string][]string{
		"trap '' INT HUP;": {"heeded: [terminated]", "got: terminated"},
		"trap '' HUP;":     {"heeded: [interrupt terminated]", "got: interrupt", "got: terminated"},
		"":                 {"heeded: [interrupt hangup terminated]", "got: interrupt", "got: hangup", "got: terminated"},
	} {
		cmd := exec.Command("sh", "-c", trap+`exec "$0" -test.run TestHelperWaitsForSignals`, os.Args[0])
		cmd.Env = append(os.Environ(), helperVariable+"=signals")
		out, err := cmd.CombinedOutput()
		for _, line := range want {
			if !strings.Contains(string(out), line+"\n") {
				t.Errorf("%q: %q is missing in (%v)\n%s", trap, line, err, out)
			}
		}
		if strings.Count(string(out), "got: ") != len(want)-1 {
			t.Errorf("%q: more signals than wanted:\n%s", trap, out)
		}
	}
}
