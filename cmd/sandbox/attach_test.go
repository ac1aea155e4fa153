package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// desk is a person's place at a sandbox that runs.
type desk struct {
	ctx context.Context
	bin string
	env []string
}

// newDesk starts the sandbox "desk" from a terminal, and leaves it by the detach
// keys: although it was started with --rm, it runs until it is stopped.
func newDesk(t *testing.T) *desk {
	t.Helper()
	dirs := guestDirs(t)
	runtime, err := os.MkdirTemp("", "sb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(runtime) })
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute) // a bound for a hang; emulated shells are slow
	t.Cleanup(cancel)
	d := &desk{ctx, filepath.Join(buildBinaries(t), "sandbox"), append(
		os.Environ(),
		"XDG_STATE_HOME="+t.TempDir(), "XDG_RUNTIME_DIR="+runtime,
		"XDG_DATA_HOME="+filepath.Dir(dirs.Data), "XDG_CACHE_HOME="+filepath.Dir(dirs.Cache), "TERM=xterm")}
	t.Cleanup(func() {
		if d.ctx.Err() == nil && d.run(t, "ls", "-q") == "" {
			return
		}
		cmd := exec.Command(d.bin, "rm", "--force", "desk")
		cmd.Env = d.env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	first := d.sit(t, "run", "--rm", "--name", "desk", "--share", t.TempDir()+":shared", "--timeout", "5m")
	first.expect(d.ctx, t, `shared`) // the prompt shows the working directory
	first.send(t, detachKeysTyped)
	first.expect(d.ctx, t, `detached from desk`)
	first.leaves(t, 0)
	return d
}

// run runs the program without a terminal, and returns what it prints.
func (d *desk) run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(d.ctx, d.bin, args...)
	cmd.Env = d.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return string(out)
}

// seat is a terminal in which the program runs.
type seat struct {
	*screen
	cmd *exec.Cmd
}

// attach opens a shell in a terminal of its own, root's: it is ready sooner
// than the user's, which matters where the guest is emulated.
func (d *desk) attach(t *testing.T, flags ...string) *seat {
	t.Helper()
	s := d.sit(t, append(append([]string{"attach", "--user", "root"}, flags...), "desk")...)
	s.expect(d.ctx, t, `shared# ?`) // the prompt shows the working directory
	return s
}

// sit runs the program in a terminal of its own.
func (d *desk) sit(t *testing.T, args ...string) *seat {
	t.Helper()
	return d.sitAt(t, exec.CommandContext(d.ctx, d.bin, args...))
}

// sitAt runs another program in a terminal of its own.
func (d *desk) sitAt(t *testing.T, cmd *exec.Cmd) *seat {
	t.Helper()
	cmd.Env = d.env
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 30, Cols: 100})
	if err != nil {
		t.Fatal(err)
	}
	tty = closable(t, tty)
	t.Cleanup(func() { tty.Close() })
	return &seat{newScreen(tty), cmd}
}

// closable returns the file in a form that closes at once, although somebody
// reads from it: only so is a terminal lost.
func closable(t *testing.T, f *os.File) *os.File {
	t.Helper()
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), f.Name())
}

// leaves waits for the program's end.
func (s *seat) leaves(t *testing.T, code int) {
	t.Helper()
	if err := s.cmd.Wait(); s.cmd.ProcessState.ExitCode() != code {
		t.Errorf("%q: exit code %d (%v), want %d\n%s", s.cmd.Args, s.cmd.ProcessState.ExitCode(), err, code, s.text())
	}
}

const detachKeysTyped = "\x10\x11" // ctrl-p ctrl-q

// until makes a shell wait for a condition in the guest.
func until(condition string) string { return "until " + condition + "; do sleep 0.2; done" }

func TestAttachOnATerminal(t *testing.T) {
	d := newDesk(t)

	t.Run("two shells at once", func(t *testing.T) {
		one, two := d.attach(t), d.attach(t, "--detach-keys", "ctrl-x,d")
		one.send(t, "shopt -q login_shell && echo login=$((40+2)) $(echo 'Z8O8' | wc -m); echo züge\r")
		one.expect(d.ctx, t, `login=42 5`)
		one.expect(d.ctx, t, `\nzüge\r`)
		// Ctrl-Z stops what runs in the guest's shell, and not our program.
		one.send(t, "sh -c 'echo started-$((40+1)); exec sleep 1000'\r")
		one.expect(d.ctx, t, `started-41`)
		one.send(t, "\x1a")
		one.expect(d.ctx, t, `Stopped`)
		// A shell with a stopped job does not exit at once, and one that was killed can be taken for one for a moment.
		one.send(t, "kill -9 %1; "+until(`[ -z "$(jobs -s)" ]`)+"; echo still-$((40+2))\r")
		one.expect(d.ctx, t, `still-42`)
		two.send(t, "tty >../tty; "+detachKeysTyped+"\x18x\x18d")
		two.expect(d.ctx, t, `detached from desk`)
		two.leaves(t, 0)
		one.send(t, "exit 9\r")
		one.leaves(t, 9)
	})

	t.Run("full screen and a large paste", func(t *testing.T) {
		shell := d.attach(t)
		shell.send(t, "stty -echo raw; echo rea''dy; head -c 1048576 | sha256sum; stty sane\r")
		shell.expect(d.ctx, t, `ready`)
		shell.send(t, strings.Repeat("0123456789abcde\n", 1<<16))
		// What sha256sum says of these bytes.
		shell.expect(d.ctx, t, pasteSum)
		shell.send(t, "\rless /etc/passwd\r")
		shell.expect(d.ctx, t, `\x1b\[\?1049h`) // the alternate screen
		shell.send(t, "q")
		shell.expect(d.ctx, t, `\x1b\[\?1049l`)
		shell.expect(d.ctx, t, `shared# ?`)
		shell.send(t, "\x04") // Ctrl-D at the prompt; before it, it would be less's last line
		shell.leaves(t, 0)
	})

	t.Run("a lost terminal ends the shell", func(t *testing.T) {
		shell := d.attach(t)
		shell.send(t, "sleep 4711; echo over\r")
		d.run(t, "exec", "desk", "--", "sh", "-c", until("pgrep -x -f 'sleep 4711'"))
		shell.tty.Close()
		shell.leaves(t, 129)
		d.run(t, "exec", "desk", "--", "sh", "-c", until("! pgrep -x -f 'sleep 4711'"))
	})

	t.Run("a session outlives its terminal", func(t *testing.T) {
		for i, lose := range []func(*seat){
			func(s *seat) { s.tty.Close() },
			func(s *seat) { _ = s.cmd.Process.Signal(syscall.SIGKILL) },
			func(s *seat) { _, _ = s.tty.WriteString(detachKeysTyped) },
		} {
			shell := d.attach(t, "--session", "work")
			shell.send(t, "count=$((count+1)); echo $count >>../count; echo wrote-$count\r")
			shell.expect(d.ctx, t, fmt.Sprintf("wrote-%d", i+1)) // not what an earlier terminal left
			lose(shell)
			_ = shell.cmd.Wait() // each of them has its own exit code
		}
		d.run(t, "exec", "--user", "root", "desk", "--", "sh", "-c", until(`test "$(tmux list-clients)" = ""`))
		if got := d.run(t, "exec", "-w", "/home/agent", "desk", "--", "cat", "count"); got != "1\n2\n3\n" {
			t.Errorf("the session's shell was not the same one: it counted %q", got)
		}
		shell := d.attach(t, "--session", "work")
		shell.send(t, "exit\r")
		shell.leaves(t, 0)
	})

	t.Run("in the background of a shell", func(t *testing.T) {
		shell := d.sitAt(t, exec.CommandContext(d.ctx, "bash", "--norc", "--noprofile", "-i"))
		shell.send(t, "sandbox() { "+d.bin+` "$@"; }`+"\r")
		shell.send(t, `sandbox exec --user root desk -- sh -c 'test -t 0 && echo back-$((40+2)); exit 3' & wait $!; echo code-$?`+"\r")
		shell.expect(d.ctx, t, `back-42`)
		shell.expect(d.ctx, t, `code-3`)
		shell.send(t, "timeout 5m "+d.bin+` exec --user root desk -- sh -c 'echo timed-$((40+2))'; echo code-$?`+"\r")
		shell.expect(d.ctx, t, `timed-42`)
		shell.expect(d.ctx, t, `code-0`)
		if strings.Contains(shell.text(), "Stopped") {
			t.Errorf("it was stopped for the terminal:\n%s", shell.text())
		}
		shell.send(t, "exit\r")
	})

	t.Run("console", func(t *testing.T) { testConsole(t, d) })
}

// sha256 of 65536 lines of 0123456789abcde.
const pasteSum = `107b265e8f4929e55502f5983fa1aeecf470db365011336380497fbf43603339`

func testConsole(t *testing.T, d *desk) {
	writer := d.sit(t, "attach", "--console", "desk")
	shell := d.sit(t, "exec", "-T", "--user", "root", "desk", "--", "sh", "-c", "exec bash </dev/hvc0 >/dev/hvc0 2>&1")
	writer.expect(d.ctx, t, `# `) // the shell's prompt
	writer.send(t, "echo con-$((40+2))\r")
	writer.expect(d.ctx, t, `con-42`)

	// Another one reads from the beginning, but does not write.
	reader := d.sit(t, "attach", "--console", "desk")
	reader.expect(d.ctx, t, `somebody else writes`)
	reader.expect(d.ctx, t, `con-42`)
	reader.send(t, "echo reader-$((40+2))\r")
	writer.send(t, "echo writer-$((40+2))\r")
	reader.expect(d.ctx, t, `writer-42`)

	// A third one takes over; the first reads on.
	third := d.sit(t, "attach", "--console", "--take", "desk")
	third.expect(d.ctx, t, `writer-42`)
	writer.expect(d.ctx, t, `took this console over`)
	third.send(t, "echo third-$((40+2))\r")
	for _, s := range []*seat{writer, reader, third} {
		s.expect(d.ctx, t, `third-42`)
		if strings.Contains(s.text(), "reader-42") {
			t.Error("a reader wrote to the console")
		}
	}
	// The shell's parent is the agent. The console needs it neither to go on nor
	// to be opened.
	third.send(t, "kill -STOP $PPID && echo without-$((40+2))\r")
	third.expect(d.ctx, t, `without-42`)
	fourth := d.sit(t, "attach", "--console", "--read-only", "desk")
	fourth.expect(d.ctx, t, `without-42`)
	third.send(t, "kill -CONT $PPID && echo again-$((40+2))\r")
	fourth.expect(d.ctx, t, `again-42`)
	third.send(t, detachKeysTyped)
	third.leaves(t, 0)

	// The console is free again, and shows its history without a terminal too.
	next := d.sit(t, "attach", "--console", "desk")
	next.expect(d.ctx, t, `third-42`)
	next.send(t, "exit\r")
	shell.leaves(t, 0)
	next.send(t, detachKeysTyped)
	next.leaves(t, 0)
	full := d.sit(t, "exec", "--user", "root", "desk", "--", "sh", "-c", `printf '\033[?1049h\033[?25l\033[?1000;1006hfull'; exec sleep 1000`)
	full.expect(d.ctx, t, `full`)
	d.run(t, "stop", "desk")
	_ = full.cmd.Wait()
	full.expect(d.ctx, t, `\x1b\[\?25h\x1b\[\?1000l\x1b\[\?1006l\x1b\[\?1049l`) // as a full screen's own end
	for _, s := range []*seat{writer, reader, fourth} {
		s.leaves(t, 0) // it ends with the sandbox
	}
	if left := d.run(t, "ls", "-q"); left != "" {
		t.Errorf("a sandbox that was run with --rm is there after its stop: %q", left)
	}
}
