//go:build linux

package server_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/agenttest"
)

func TestLastWordAfterTheEndArrives(t *testing.T) {
	f := newFixture(t)
	out, err := f.Client(t).Command(t.Context(), "sh", "-c",
		"(sleep 1; echo late; sleep 1; echo later) & echo early; exit 3").Output()
	mustExit(t, err, 3)
	if want := "early\nlate\nlater\n"; string(out) != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

// background is a shell script that writes to its output, and then makes the
// file "alive", once there is a file "go".
const background = `while ! test -e go; do sleep 0.05; done
for i in 1 2 3; do echo out; echo err >&2; sleep 0.05; done
touch alive`

// goesOn lets the background script go on and waits until it has done its work.
func goesOn(t *testing.T, f *agenttest.Server) {
	t.Helper()
	script(t, f, "go", "", 0o600)
	eventually(t, "the program in the background does its work", func() bool {
		_, err := os.Stat(filepath.Join(f.Home, "alive"))
		return err == nil
	})
}

func TestBackgroundProgramLivesOnAfterItsCommand(t *testing.T) {
	for _, starter := range []string{"nohup", "setsid"} {
		t.Run(starter, func(t *testing.T) {
			f := newFixture(t)
			var stderr bytes.Buffer
			cmd := f.Client(t).Command(t.Context(), "sh", "-c", starter+` sh -c "$1" & echo started`, "sh", background)
			cmd.Stderr = &stderr
			if out, err := cmd.Output(); err != nil || string(out) != "started\n" {
				t.Fatalf("%q, %v", out, err)
			}
			goesOn(t, f)
		})
	}
}

func TestCommandThatIgnoresTheHangupLivesOnWithoutItsHost(t *testing.T) {
	f := newFixture(t)
	client := f.Client(t)
	cmd := client.Command(t.Context(), "nohup", "sh", "-c", "echo started; "+background)
	startWaiting(t, cmd)
	client.Close()
	goesOn(t, f)
}

var errFull = errors.New("the disk is full")

// fullWriter takes one write.
type fullWriter struct{ bytes.Buffer }

func (w *fullWriter) Write(p []byte) (int, error) {
	if w.Len() > 0 {
		return 0, errFull
	}
	return w.Buffer.Write(p)
}

func TestCommandHearsThatItsOutputFails(t *testing.T) {
	f := newFixture(t)
	for stream, script := range map[string]string{
		"output":       "echo $$; exec yes",
		"error output": "echo $$ >&2; exec yes >&2",
	} {
		for name, client := range map[string]*agent.Client{"direct": f.Client(t), "forwarded": through(t, forward(t, f))} {
			t.Run(stream+"/"+name, func(t *testing.T) {
				out := new(fullWriter)
				cmd := client.Command(t.Context(), "sh", "-c", "trap '' HUP; "+script)
				cmd.Stdout, cmd.Stderr = out, out
				err := cmd.Run()
				if broken, ok := errors.AsType[*agent.StreamError](err); !ok || broken.Stream != stream || !errors.Is(err, errFull) {
					t.Errorf("got %v, want that the %s failed", err, stream)
				}
				pid, _, _ := strings.Cut(out.String(), "\n")
				isGone(t, pid)
			})
		}
	}
}

func TestTerminalIsHungUpWhenItsOutputFails(t *testing.T) {
	f := newFixture(t)
	cmd := f.Client(t).Command(t.Context(), "sh", "-c", "echo $$; exec yes")
	cmd.Terminal, cmd.Stdout = &agent.Terminal{}, new(fullWriter)
	if err := cmd.Run(); !errors.Is(err, errFull) {
		t.Errorf("got %v, want %v", err, errFull)
	}
}

func TestInputThatFailsIsNoEndOfInput(t *testing.T) {
	f := newFixture(t)
	cmd := f.Client(t).Command(t.Context(), "sh", "-c", "cat >received; touch complete")
	cmd.Stdin = io.MultiReader(strings.NewReader("half\n"), failingReader{})
	err := cmd.Run()
	if broken, ok := errors.AsType[*agent.StreamError](err); !ok || broken.Stream != "input" || !errors.Is(err, errFull) {
		t.Errorf("got %v, want that the input failed", err)
	}
	if _, err := os.Stat(filepath.Join(f.Home, "complete")); err == nil {
		t.Error("the command took half of its input for all of it")
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errFull }

func TestLossOfTheHostIsNoEndOfInput(t *testing.T) {
	f := newFixture(t)
	for name, connect := range map[string]func() *agent.Client{
		"direct":    func() *agent.Client { return f.Client(t) },
		"forwarded": func() *agent.Client { return through(t, forward(t, f)) },
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 { // an end that came first would win now and then
				client := connect()
				cmd := client.Command(t.Context(), "sh", "-c", "echo $$; read -r line; : >complete")
				input, _ := io.Pipe()
				cmd.Stdin = input
				pid, _ := startWaiting(t, cmd)
				client.Close()
				isGone(t, pid)
				if _, err := os.Stat(filepath.Join(f.Home, "complete")); err == nil {
					t.Fatal("the command took what it had got of its input for all of it")
				}
			}
		})
	}
}
