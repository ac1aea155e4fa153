package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
)

// TestShellOnATerminal drives an interactive shell as a person would.
func TestShellOnATerminal(t *testing.T) {
	dirs := guestDirs(t)
	bin := buildBinaries(t)
	runtime, err := os.MkdirTemp("", "sb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(runtime) })
	env := append(os.Environ(),
		"XDG_STATE_HOME="+t.TempDir(), "XDG_RUNTIME_DIR="+runtime,
		"XDG_DATA_HOME="+filepath.Dir(dirs.Data), "XDG_CACHE_HOME="+filepath.Dir(dirs.Cache), "SANDBOX_IMAGE="+testImage(), "TERM=xterm")
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "sandbox"), "run", "--rm", "--share", t.TempDir()+":shared")
	cmd.Env = env
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 30, Cols: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	screen := newScreen(tty)

	screen.expect(ctx, t, `shared`) // the prompt shows the working directory
	screen.send(t, "stty size; echo TERM=$TERM\r")
	screen.expect(ctx, t, `\b30 100\b`)
	screen.expect(ctx, t, `TERM=xterm`)
	if err := pty.Setsize(tty, &pty.Winsize{Rows: 41, Cols: 77}); err != nil {
		t.Fatal(err)
	}
	screen.send(t, "until stty size | grep -q '41 77'; do :; done; echo resized-$((40+1))\r")
	screen.expect(ctx, t, `resized-41`)
	// Ctrl-C ends the command in the guest, not our session.
	screen.send(t, "sh -c 'echo started-$((40+1)); exec sleep 1000'\r")
	screen.expect(ctx, t, `started-41`)
	screen.send(t, "\x03")
	screen.send(t, "echo still-$((40+2))\r")
	screen.expect(ctx, t, `still-42`)
	screen.send(t, "exit 9\r")
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 9 {
		t.Errorf("the shell's exit code 9 became %d (%v)\n%s", cmd.ProcessState.ExitCode(), err, screen.text())
	}
	ls := exec.Command(cmd.Path, "ls", "-q")
	ls.Env = env
	if left, err := ls.CombinedOutput(); err != nil || len(left) > 0 {
		t.Errorf("a sandbox that was run with --rm is there after its shell: %q, %v", left, err)
	}
}

// screen collects what a terminal shows.
type screen struct {
	tty *os.File

	mu    sync.Mutex
	shown bytes.Buffer
	from  int // what was expected and seen lies before
	grown chan struct{}
}

func newScreen(tty *os.File) *screen {
	s := &screen{tty: tty, grown: make(chan struct{}, 1)}
	go func() {
		defer close(s.grown)
		buf := make([]byte, 4096)
		for {
			n, err := tty.Read(buf)
			s.mu.Lock()
			s.shown.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return // EIO, when the other end has closed
			}
			select {
			case s.grown <- struct{}{}:
			default:
			}
		}
	}()
	return s
}

func (s *screen) send(t *testing.T, text string) {
	t.Helper()
	if _, err := s.tty.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown.String()
}

// expect waits until the terminal shows what pattern says, after what was
// expected before.
func (s *screen) expect(ctx context.Context, t *testing.T, pattern string) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for {
		if loc := re.FindStringIndex(s.text()[s.from:]); loc != nil {
			s.from += loc[1]
			return
		}
		select {
		case _, ok := <-s.grown:
			if !ok && !re.MatchString(s.text()[s.from:]) {
				t.Fatalf("the terminal closed without showing %q:\n%s", pattern, s.text())
			}
		case <-ctx.Done():
			t.Fatalf("the terminal does not show %q:\n%s", pattern, s.text())
		}
	}
}
