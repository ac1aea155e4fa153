//go:build linux

package server_test

import (
	"bufio"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
)

// terminal is a command on a terminal, with its two streams.
type terminal struct {
	*agent.Cmd
	keys   *io.PipeWriter
	screen *bufio.Reader
}

func startTerminal(t *testing.T, cmd *agent.Cmd) terminal {
	t.Helper()
	keysR, keysW := io.Pipe()
	screenR, screenW := io.Pipe()
	cmd.Terminal = &agent.Terminal{Term: "vt220", Width: 97, Height: 31}
	cmd.Stdin, cmd.Stdout = keysR, screenW
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keysW.Close() })
	return terminal{cmd, keysW, bufio.NewReader(screenR)}
}

// await reads up to a line with the given end.
func (tt terminal) await(t *testing.T, suffix string) string {
	t.Helper()
	found := make(chan string, 1)
	go func() {
		for {
			line, err := tt.screen.ReadString('\n')
			line = strings.TrimSpace(line)
			if strings.HasSuffix(line, suffix) || err != nil {
				found <- line
				return
			}
		}
	}()
	select {
	case line := <-found:
		if !strings.HasSuffix(line, suffix) {
			t.Fatalf("the screen ended with %q; want a line that ends with %q", line, suffix)
		}
		return line
	case <-time.After(patience):
		t.Fatalf("no line on the screen ends with %q", suffix)
	}
	return ""
}

func TestTerminalHasItsSizeAndCanBeResized(t *testing.T) {
	f := newFixture(t)
	tt := startTerminal(t, f.Client(t).Command(t.Context(), "sh", "-c",
		`trap 'stty size; exit 4' WINCH; stty size; echo "$TERM"; test -t 0 && test -t 1 && test -t 2 && echo tty; while :; do sleep 0.05; done`))
	tt.await(t, "31 97")
	tt.await(t, "vt220")
	tt.await(t, "tty")
	if err := tt.Resize(120, 50); err != nil {
		t.Fatal(err)
	}
	tt.await(t, "50 120")
	mustExit(t, tt.Wait(), 4)
}

func TestTerminalControlsItsCommand(t *testing.T) {
	f := newFixture(t)
	tt := startTerminal(t, f.Client(t).Command(t.Context(), "sh", "-c", "trap 'exit 9' INT; echo up; while :; do sleep 0.05; done"))
	tt.await(t, "up")
	if _, err := tt.keys.Write([]byte{3}); err != nil { // Ctrl-C
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, tt.screen) }()
	mustExit(t, tt.Wait(), 9)
}

func TestEndOfInputReachesATerminal(t *testing.T) {
	f := newFixture(t)
	for _, input := range []string{"", "line\n", "unfinished"} {
		tt := startTerminal(t, f.Client(t).Command(t.Context(), "sh", "-c", "cat >copy; echo ended"))
		go func() {
			_, _ = io.WriteString(tt.keys, input)
			tt.keys.Close()
		}()
		tt.await(t, "ended")
		if err := tt.Wait(); err != nil {
			t.Errorf("input %q: %v", input, err)
		}
		out, err := f.Client(t).Command(t.Context(), "cat", "copy").Output()
		if err != nil || string(out) != input {
			t.Errorf("input %q arrived as %q, %v", input, out, err)
		}
	}
}

func TestLossOfTheHostEndsATerminal(t *testing.T) {
	f := newFixture(t)
	client := f.Client(t)
	tt := startTerminal(t, client.Command(t.Context(), "sh", "-c", "echo $$; exec sleep 1000"))
	line, err := tt.screen.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
	isGone(t, strings.TrimSpace(line))
}

func TestBackgroundJobDoesNotHoldATerminal(t *testing.T) {
	f := newFixture(t)
	tt := startTerminal(t, f.Client(t).Command(t.Context(), "sh", "-c", "trap '' HUP; sleep 5 & echo bye"))
	tt.await(t, "bye")
	go func() { _, _ = io.Copy(io.Discard, tt.screen) }()
	if err := tt.Wait(); err != nil {
		t.Error(err)
	}
}
